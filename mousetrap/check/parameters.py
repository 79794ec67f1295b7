"""Reads the parameters of a notebook from its ``parameters`` cell, and checks the values given.

papermill only warns about a misspelt parameter, and it does not check types. Here both are errors,
and they are raised before a kernel starts. Python's own parser reads the cell: papermill's regular
expression cannot read ``url = "a=b"``. Nothing here runs a notebook.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import io
import math
import re
import sys
import tokenize
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.check import notebook_format
from mousetrap.errors import CheckError, MousetrapError, ParameterError
from mousetrap.runtime.bundled_files import bundled_folder
from mousetrap.settings import MASK

INSTALL = "pip install 'mousetrap-mq[notebook]'"

_TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|credential"
    r"|(^|_)(pwd|token|auth|apikey|(api|access|private)_key)(_|$)|(^|_)pass$"
)
_PASSWORD_IN_URL = re.compile(r"\w://[^/\s:@]*:[^/\s@]+@")


class Expression(str):
    """The source text of a default that only the kernel can evaluate, such as ``2 * minutes``."""

    __slots__ = ()


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: ``jobs: int = 500  # how many jobs to send``.

    `type` is ``"str"``, ``"int"``, ``"float"`` or ``"bool"``. It is None if neither annotation nor
    default is one of them; then the parameter cannot be set. `default` is the value, or an
    `Expression`.
    """

    name: str
    type: str | None
    default: object
    help: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether the default, or its source text, may be a secret."""
        if not isinstance(self.default, str) or not self.default:
            return False  # token_limit: int = 5 is not one
        return _is_secret_name(self.name) or bool(_PASSWORD_IN_URL.search(self.default))

    @property
    def default_text(self) -> str:
        """The default as text for people; a secret is masked."""
        return MASK if self.is_secret else str(self.default)


def parameters_of(notebook: str | Path) -> list[Parameter]:
    """Return the parameters of *notebook*, in the order of its cell tagged ``parameters``.

    Raises:
        CheckError: the file does not exist, or is not a notebook.
        ParameterError: the cell is not plain Python.
    """
    return parameters_in(read_notebook(notebook), Path(notebook)) or []


def parse_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """Turn ``["jobs=500", "seed=1"]`` into ``{"jobs": "500", "seed": "1"}``.

    Raises:
        ParameterError: a pair is not ``name=value``, or a name is given twice. The error does not
            contain the value.
    """
    parsed: dict[str, str] = {}
    for position, pair in enumerate(pairs, start=1):
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ParameterError(f"parameter {position} is not name=value: write it as jobs=500")
        if name in parsed:
            raise ParameterError(f"parameter {name!r} is given twice: leave one out")
        parsed[name] = value
    return parsed


def read_notebook(notebook: str | Path) -> Any:
    """Return the notebook as a document of nbformat 4; what is missing in it has its default.

    Raises:
        CheckError: nbformat is not installed, or the file does not exist or is not a notebook.
    """
    if importlib.util.find_spec("nbformat") is None:
        raise CheckError(f"nbformat is not installed, and it reads notebooks: {INSTALL}")
    path = Path(notebook)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckError(f"there is no notebook {path}{_similar_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckError(f"{path} cannot be read as a notebook: {_error_text(error)}") from None
    try:
        return notebook_format.parse(text)
    except Exception as error:  # noqa: BLE001 -- nbformat raises any error of its parsers
        raise CheckError(f"{path} is not a Jupyter notebook: {_error_text(error)}") from None


def skip_slow_imports() -> None:
    """Prevent the import of a slow package that no notebook needs.

    nbformat imports jsonschema, which imports rfc3987_syntax from its version 4.25 on, if that is
    installed. This spends a second or more on the grammar of a format (``iri``) that notebooks do
    not use. Call it only in a process that does nothing but check notebooks: jsonschema does not
    know that format afterwards.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # "cannot be imported"


def parameters_in(document: Any, path: Path) -> list[Parameter] | None:
    """Return the parameters of a notebook *document*; None if it has no such cell."""
    cell = next(
        (
            cell
            for cell in document.cells
            if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
        ),
        None,
    )
    if cell is None:
        return None
    source = re.sub(r"(?m)^[%!].*$", "", cell.source)  # IPython's magics are not Python
    try:
        tree = ast.parse(source)
        comments = _comments(source)
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ParameterError(
            f"the parameters cell of {path} is not plain Python ({_error_text(error)}): "
            "write lines like jobs: int = 500  # how many"
        ) from None
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        for name, kind, default in _assignments(statement):
            line = statement.end_lineno or statement.lineno
            found[name] = Parameter(name, kind, default, comments.get(line, ""))
    return list(found.values())


def convert_parameters(
    given: Mapping[str, object], declared: list[Parameter] | None, path: Path
) -> dict[str, object]:
    """Return *given* with each value in its declared type; text is converted.

    Raises:
        ParameterError: a parameter is unknown, mistyped or looks like a secret. The error does not
            contain a value that may be a secret.
    """
    known = {parameter.name: parameter for parameter in declared or []}
    for parameter in known.values():
        _refuse_declared_secret(parameter, path)
    converted: dict[str, object] = {}
    for name, value in given.items():
        # First, so that no later error can contain a secret.
        _refuse_secret(name, value, known.get(name))
        if declared is None:
            raise ParameterError(
                f"{path} has no cell tagged 'parameters', so {_quoted(name)} cannot be set: "
                "tag the cell with the defaults"
            )
        if name not in known:
            raise ParameterError(_unknown(name, list(known), path))
        converted[name] = _converted(known[name], value)
    return converted


def may_be_secret(name: str, value: object) -> bool:
    """Return whether *value* must not be shown: by its parameter's name, or as a URL."""
    return _is_secret_name(name) or _PASSWORD_IN_URL.search(f"{name}={value}") is not None


def _converted(parameter: Parameter, value: object) -> object:
    kind = parameter.type
    if kind is None:
        raise ParameterError(
            f"parameter {parameter.name!r} has no type that can be set from outside: "
            "annotate it as str, int, float or bool"
        )
    try:
        if isinstance(value, str):
            return _from_text(kind, value)
        if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return _finite(float(value))
        if type(value).__name__ == kind:  # a bool is not an int here
            repr(value)  # fails for an int too long to be written into a cell
            return value
    except (ValueError, OverflowError):
        pass
    shown = "a value" if _is_secret_name(parameter.name) else _quoted(value)
    raise ParameterError(f"parameter {parameter.name!r} is {shown}: it must be {_TYPE_NAMES[kind]}")


def _from_text(kind: str, text: str) -> object:
    if kind == "str":
        text.encode()  # fails for a lone surrogate: bytes from a shell that are not UTF-8
        return text
    if kind == "bool":
        if text.strip().lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[text.strip().lower()]
    return int(text) if kind == "int" else _finite(float(text))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def _assignments(statement: ast.stmt) -> list[tuple[str, str | None, object]]:
    """Return (name, type, default) of each simple name that *statement* assigns."""
    if isinstance(statement, ast.AnnAssign):
        targets: list[ast.expr] = [statement.target]
        default, _ = _default(statement.value)
        kind: str | None = ast.unparse(statement.annotation).strip("'\"")
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
        default, kind = _default(statement.value)
    else:
        return []
    kind = kind if kind in _TYPE_NAMES else None
    return [(target.id, kind, default) for target in targets if isinstance(target, ast.Name)]


def _default(expression: ast.expr | None) -> tuple[object, str | None]:
    if expression is None:
        return None, None
    try:
        value = ast.literal_eval(expression)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return Expression(ast.unparse(expression)), None
    return value, type(value).__name__


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _unknown(name: str, known: list[str], path: Path) -> str:
    exist = f"it has {', '.join(known)}" if known else "its parameters cell is empty"
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{path} has no parameter {_quoted(name)}{meant} ({exist})"


def _refuse_secret(name: str, value: object, parameter: Parameter | None) -> None:
    number = parameter is not None and parameter.type in ("int", "float", "bool")
    if _is_secret_name(name) and not number:  # token_limit: int = 5 is not a secret
        what = f"parameter {name!r} looks like a secret"
    elif _PASSWORD_IN_URL.search(f"{name}={value if isinstance(value, str) else ''}"):
        what = "a parameter contains a URL with a password"
    else:
        return
    raise ParameterError(
        f"{what}, and parameters are saved in the executed notebook: put it into an environment "
        "variable, and let the notebook read os.environ"
    )


def _refuse_declared_secret(parameter: Parameter, path: Path) -> None:
    if parameter.is_secret and not isinstance(parameter.default, Expression):
        raise ParameterError(
            f"the default of parameter {parameter.name!r} in {path} looks like a secret: "
            "remove it, and let the notebook read os.environ"
        )


def _is_secret_name(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _SECRET.search(words) is not None


def _quoted(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "too long a number"
    return text if len(text) <= 60 else f"{text[:50]}..."


def _similar_file(path: Path) -> str:
    names = [neighbour.name for neighbour in path.parent.glob("*.ipynb")]
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"; did you mean {path.with_name(close[0])}?"
    with suppress(MousetrapError):  # the installation has no notebooks
        if (bundled_folder("notebooks") / path.name).is_file():
            return ": copy it here with `mousetrap notebooks`"
    return ": check the name and the folder"


def _error_text(error: Exception) -> str:
    """Return the type of *error* and its first line; nbformat's errors contain the document."""
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
