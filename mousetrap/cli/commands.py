"""The table of commands. The module of a command is imported when the command is looked up.

So ``mousetrap --help`` imports none of them, and ``mousetrap send`` only what it needs.
"""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from mousetrap.cli.errors import Group, new_app

COMMANDS = {  # name: the function or the app, its line in `mousetrap --help`
    "demo": ("check:demo", "Run the example pipeline and report what happened."),
    "check": ("check:app", "Run notebooks under strict rules: do they pass?"),
    "new": ("new:new", "Make a project: notebook, package, tests, check."),
    "notebooks": ("notebooks:notebooks", "Copy mousetrap's notebooks here, to read and to run."),
    "work": ("work:work", "Run a stage on the messages of its queue, until Ctrl-C."),
    "describe": ("describe:describe", "Show a flow: its stages, queues and types."),
    "send": ("send:send", "Send messages to a queue, confirmed by the broker."),
    "queues": ("queues:show_queues", "Show how many messages wait in each queue."),
    "peek": ("queues:peek_queue", "Show the first messages of a queue; they stay there."),
    "drain": ("queues:drain_queue", "Take messages out of a queue and print them."),
    "topology": ("topology:topology", "Print what a flow needs on a broker."),
    "extract": ("extract:extract", "Write a stage's notebook cells as a module."),
    "sweep": ("sweep:sweep", "Delete the queues of runs whose process is gone."),
    "doctor": ("doctor:doctor", "Check the setup; say how to fix what is wrong."),
    "dead": ("dead:app", "List, replay or delete the dead letters of a queue."),
    "broker": ("broker:app", "Start a broker, stop it, show which there are."),
    "version": ("broker:version", "Print the versions of mousetrap, pika and the broker."),
}

FIRST_STEPS = {  # what a new user does first, in this order
    "doctor": "is all there that is needed?",
    "demo": "an example, and what became of each job",
    "notebooks": "copies of the notebooks, to read and to run",
    "new": "a project of your own",
}


class Commands(UserDict[str, Any]):
    """typer's commands by name; before one is looked up, its value is its home as text."""

    def __getitem__(self, name: str) -> Any:
        """Return the command *name*, imported if need be."""
        if isinstance(value := super().__getitem__(name), str):
            value = self.data[name] = _load(name, value)
        return value


class LazyGroup(Group):
    """The commands of `COMMANDS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands({name: home for name, (home, _) in COMMANDS.items()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 -- the signature is typer's
        """Return the names, without importing anything."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 -- as above
        """Write a line for each command, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        with formatter.section("First steps"):
            formatter.write_dl([(f"mousetrap {name}", why) for name, why in FIRST_STEPS.items()])


def _load(name: str, home: str) -> Any:
    module, _, attribute = home.partition(":")
    found = getattr(import_module(f"mousetrap.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, new_app("")
        found.command(name)(function)
    command = get_command(found)
    command.name = name
    return command
