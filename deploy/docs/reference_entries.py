"""A Sphinx extension: pages name a public object or a command, and get its documentation.

    ```{entry} mousetrap.send
    ```

becomes the signature and the docstring. The line ``:members: start, stop`` inside chooses the
members of a class; without it all public ones are shown.

    ```{command} dead replay
    ```

becomes the help of ``mousetrap dead replay``: usage, text, arguments and options.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from importlib import import_module
from typing import Any

FENCE = re.compile(r"^```\{(entry|command)\} (.+?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; Sphinx calls it."""
    app.connect("source-read", _expand)
    app.connect("autodoc-process-docstring", _as_restructured_text)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _expand(app: Any, page: str, source: list[str]) -> None:
    del app, page
    source[0] = FENCE.sub(
        lambda found: (
            _entry(found[2], found[3]) if found[1] == "entry" else _command(found[2].split())
        ),
        source[0],
    )


# ---- public names ------------------------------------------------------------------------------


def resolve(name: str) -> Any:
    """Return the object of a dotted name, such as ``mousetrap.broker.ensure``."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _entry(name: str, options: str) -> str:
    found = resolve(name)
    if inspect.isclass(found):
        options = options.strip() or ":members:"
        directive = "autoexception" if issubclass(found, BaseException) else "autoclass"
        if not issubclass(found, BaseException):
            options += "\n:undoc-members:" if "undoc" in options else ""
    elif callable(found) and inspect.isroutine(found):
        directive = "autofunction"
    else:  # a value has no docstring: the page says what it is
        directive = "py:data"
        options = f":type: {type(found).__name__}"
    lines = [f".. {directive}:: {name}", *(f"   {line}" for line in options.splitlines() if line)]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def _as_restructured_text(
    app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Make a literal block of an indented one, as Markdown does, and mark ``Threads:``.

    The fields of a class are listed with the comments that stand behind them.
    """
    del app, name, options
    lines[:] = list(_literal_blocks(lines))
    if what == "class":
        lines += _fields(found)
    for number, line in enumerate(lines):
        line = re.sub(r"^(Threads|Processes):(?= )", r"**\1:**", line)
        lines[number] = re.sub(r"(?<!`)(`[\w.]+`)(?=\w)", r"\1\\ ", line)  # several `Message`s


def _literal_blocks(lines: list[str]) -> Iterator[str]:
    is_literal = False
    before = ""
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if is_literal and line and not indented:
            is_literal = False
        elif not is_literal and indented and not before and number:
            is_literal = True
            yield "::"
            yield ""
        yield line
        before = line


def _fields(found: type) -> Iterator[str]:
    """Yield the fields of a class as a list: ``port: int = 5672  # of the broker``."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(found))
    except (OSError, TypeError):
        return
    lines = source.splitlines()
    [definition] = ast.parse(source).body
    comments = {
        each.start[0]: each.string.lstrip("# ")
        for each in tokenize.generate_tokens(io.StringIO(source).readline)
        if each.type == tokenize.COMMENT and "noqa" not in each.string
    }
    yield from ("", "**Fields:**", "") if comments else ()
    for node in getattr(definition, "body", []):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        comment = comments.get(node.end_lineno or 0, "")
        above = node.lineno - 1
        while above in comments and lines[above - 1].lstrip().startswith("#"):
            comment = f"{comments[above]} {comment}".strip()
            above -= 1
        if node.target.id.startswith("_") or not comment:
            continue
        value = f" = {ast.unparse(node.value)}" if node.value else ""
        yield f"``{node.target.id}: {ast.unparse(node.annotation)}{value}``"
        yield f"   {comment.replace('`', '``')}"
        yield ""


def _skip(app: Any, what: str, name: str, found: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the members that every exception has from Python."""
    del app, what, skip, options
    return True if name in {"add_note", "with_traceback", "args"} and callable(found) else None


# ---- commands ----------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Return every command by its words, such as ``dead replay``; a group itself is none."""
    return dict(_commands(_root(), ()))


def _root() -> Any:
    from typer.main import get_command

    from mousetrap.cli import app

    return get_command(app)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        found = group.get_command(None, name)
        path = (*words, name)
        if hasattr(found, "list_commands"):
            if getattr(found, "invoke_without_command", False):
                yield " ".join(path), found
            yield from _commands(found, path)
        else:
            yield " ".join(path), found


def _command(words: list[str]) -> str:
    import click

    command = _root() if words == ["mousetrap"] else commands()[" ".join(words)]
    name = " ".join(["mousetrap", *(each for each in words if each != "mousetrap")])
    context = click.Context(command, info_name=name)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"```console\n{usage}\n```", _help(command.help)]
    for title, kind in (("Argument", "argument"), ("Option", "option")):
        rows = [
            _row(each, context)
            for each in command.params
            if each.param_type_name == kind and not getattr(each, "hidden", False)
        ]
        if rows:
            parts.append("\n".join([f"| {title} | |", "|---|---|", *rows]))
    if command.epilog:
        parts.append(_help(command.epilog))
    return "\n\n".join(part for part in parts if part)


def _row(parameter: Any, context: Any) -> str:
    name, text = parameter.get_help_record(context) or (parameter.human_readable_name, "")
    text = text or getattr(parameter, "help", None) or ""
    return f"| `{_cell(name)}` | {_cell(_literal(text))} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _literal(text: str) -> str:
    """Keep characters that Markdown would read: ``<``, ``*``, ``_`` and ``[``."""
    return re.sub(r"([<*_\[])", r"\\\1", re.sub(r"\s+", " ", text))


def _help(text: str | None) -> str:
    """Return the help as Markdown; after a backspace the lines of a paragraph stay as they are."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        if paragraph.startswith("\b"):
            parts.append(f"```text\n{paragraph[1:].strip(chr(10))}\n```")
        elif paragraph.startswith("Example: "):
            line = paragraph.removeprefix("Example: ")
            parts.append(f"```console\n{' '.join(line.split())}\n```")
        else:
            parts.append(_literal(paragraph))
    return "\n\n".join(parts)
