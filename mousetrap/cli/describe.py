"""``mousetrap describe``: a flow as a picture in the terminal, as JSON, or as AsyncAPI."""

from __future__ import annotations

import json as json_module
import shutil
import sys
from typing import Annotated

import typer

from mousetrap.cli.console import print_line
from mousetrap.cli.find_stage import find_flow
from mousetrap.cli.options import Json
from mousetrap.errors import SettingsError
from mousetrap.runs.flow_description import describe as describe_flow

FlowNames = Annotated[
    list[str],
    typer.Argument(metavar="FLOW...", help="A module or package with stages, or module:attribute."),
]


def describe(
    names: FlowNames,
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="Print an AsyncAPI 3 document, as JSON.")
    ] = False,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Title of the document; default: FLOW.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--doc-version", metavar="TEXT", help="Its version: 1.0.0")
    ] = None,
    json: Json = False,
) -> None:
    """Show the stages of FLOW, with queues, exchanges, types and retries. Needs no broker.

    FLOW is a module or a package whose stages are a flow, a list of stages (module:attribute), or
    a single stage. Several of them are one flow.

    In the picture ○ is a queue, ■ a stage, ◇ an exchange. The outputs of a stage go to the queue
    below it and to those at its right; a dotted line is a route, to which only a Send goes.

    Below the picture are hints of the checks that are made when a flow is made. A flow with an
    error ends this command with exit code 2.

    With --json, the same as data: stages, queues, exchanges, findings.

    With --asyncapi, channels, operations and messages with JSON Schemas and AMQP bindings, for the
    tools of asyncapi.com, which make documentation and code from it.

    Example: mousetrap describe my_flow

    Example: mousetrap describe fetch process

    Example: mousetrap describe my_flow:stages --asyncapi > asyncapi.json
    """
    if (title or version) and not asyncapi:
        raise SettingsError("--title and --doc-version belong to --asyncapi: give that as well")
    description = describe_flow(find_flow(names))
    if asyncapi:
        document = description.asyncapi(title or ", ".join(names), version or "1.0.0")
        print_line(json_module.dumps(document, indent=2))
    elif json:
        print_line(json_module.dumps(description.as_dict(), default=str))
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        print_line(description.text(width, ascii=not encoding.startswith("utf")))
