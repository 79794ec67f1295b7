"""What is one value and what is many: the rule of every function that takes either.

Lists, tuples, ranges, the views of a dict and iterators (a generator, a cursor, an open file) are
many values. Anything else is one, also if it can be gone through: a data frame, an array, a byte
string, a set, a mapping, a named tuple, a row of a database, a model. So no value is ever sent in
its pieces. What a handler returns is one value, a list too, unless it is an iterator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MappingView
from typing import Any, TypeGuard

# Methods of data frames, arrays, series and scalars of all libraries that return plain values, and
# what to send. The first that a value has is named, so the order matters: a series of pandas has
# `to_dict` as well.
_PLAIN_FORMS = {
    "to_pylist": "{}.to_pylist()",  # pyarrow
    "as_py": "{}.as_py()",  # a scalar of pyarrow
    "to_dicts": "{}.to_dicts()",  # polars
    "to_list": "{}.to_list()",  # a series
    "tolist": "{}.tolist()",  # numpy, array.array
    "itertuples": '{}.to_dict("records")',  # pandas
    "to_dict": "{}.to_dict()",  # xarray
    "_asdict": "{}._asdict()",
    "keys": "dict({})",
    "collect": "{}.collect()",  # a lazy frame
    "__fspath__": "str({})",
}
# Attributes of the classes of dataclasses, attrs, msgspec and pydantic.
_FIELDS = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "__pydantic_fields__")


def is_many(data: Any) -> bool:
    """Return whether *data* is many values: a list or an iterator, mostly; see the module."""
    if isinstance(data, (list, tuple)):
        # a named tuple, a row of SQLAlchemy, or a `time.struct_time` is a record
        return not (hasattr(type(data), "_fields") or hasattr(type(data), "n_fields"))
    return isinstance(data, (range, MappingView)) or _is_iterator(data)


def many(data: Iterable[Any], function: str) -> Iterable[Any]:
    """Return *data*, which *function* takes as many values.

    Raises:
        TypeError: it is one value; the text says how to send it, or its parts.
    """
    if is_many(data):
        return data
    kind = type(data).__name__
    raise TypeError(
        f"{function} takes many values, and a {kind} is one: give [value] to send it as one "
        f"message, or a list of its parts, as {way_out(data) or 'list(value)'}"
    )


def outputs_of(result: Any) -> Iterable[Any]:
    """Return the values in what a handler returned: none for None, many for an iterator."""
    if result is None:
        return ()
    return result if _is_iterator(result) else (result,)


def _is_iterator(value: Any) -> TypeGuard[Iterator[Any]]:
    """Return whether *value* is an iterator; a model that is its own iterator is a record."""
    return isinstance(value, Iterator) and not any(hasattr(type(value), each) for each in _FIELDS)


def way_out(value: Any) -> str:
    """Return an expression for *value* in plain values that can be JSON; "" if none is known."""
    for method, expression in _PLAIN_FORMS.items():
        if callable(getattr(value, method, None)):
            return expression.format("value")
    return "list(value)" if isinstance(value, Iterable) else ""
