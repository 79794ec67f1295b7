"""``mousetrap check NOTEBOOK --help``: the notebook's parameters, after the usual help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from mousetrap.display.safe_text import safe
from mousetrap.errors import CheckError

if TYPE_CHECKING:
    from mousetrap.check import Parameter

_NOTEBOOKS = "mousetrap.notebooks"  # the key of their names in the context


class NotebookCommand(TyperCommand):
    """A command whose help also lists the parameters of the notebooks on its command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Store the notebooks' names first: ``--help`` ends the parsing."""
        # A second parser, because it separates the values of options from the arguments.
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_NOTEBOOKS] = [each for each in given.get("notebooks") or () if each]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the usual epilog, then a section for each notebook."""
        super().format_epilog(ctx, formatter)
        for name in ctx.meta.get(_NOTEBOOKS, ()):
            with formatter.section(f"Parameters of {safe(name)}"):
                _write(Path(name), formatter)


def _write(notebook: Path, formatter: Any) -> None:
    from mousetrap.check import parameters_of

    try:
        parameters = parameters_of(notebook)
    except CheckError as error:  # the usual help is printed anyway
        formatter.write_text(safe(error))
        return
    if not parameters:
        formatter.write_text("none: no cell is tagged 'parameters', or nothing is set in it")
        return
    formatter.write_dl([_line(each) for each in parameters])


def _line(parameter: Parameter) -> tuple[str, str]:
    kind = parameter.type or "cannot be set: no type"
    default = f"[default: {parameter.default_text}]"
    help = f"{parameter.help}  {default}" if parameter.help else default
    return safe(f"-p {parameter.name} <{kind}>"), safe(help)
