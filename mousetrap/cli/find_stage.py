"""Finds the stage that a person names on the command line: ``fetch``, or ``module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.flows.stage import Stage, stage
from mousetrap.model.retry_policy import reason_of

BUILT_IN = {
    "fetch": "mousetrap.run_fetch_worker:fetch",
    "process": "mousetrap.run_processing_worker:process",
}


def find_stage(
    name: str, reads: str | None, writes: Sequence[str] | None = None
) -> Stage[Any, Any]:
    """Return the stage called *name*; a plain function becomes one that reads and writes so.

    Raises:
        SettingsError: there is none, or the queues are missing or superfluous; says what to give.
    """
    module_name, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not module_name or not attribute:
        near = difflib.get_close_matches(name, BUILT_IN, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise SettingsError(
            f"there is no stage {name!r}{hint}: use {', '.join(BUILT_IN)}, or module:attribute"
        )
    if os.getcwd() not in sys.path:  # `python -m` puts it there, an installed script does not
        sys.path.insert(0, os.getcwd())
    value = _attribute(_import(module_name), attribute)
    if isinstance(value, Stage):
        if reads is not None or writes:
            raise SettingsError(
                f"{name} is a stage and has its queues: leave --reads and --writes out, or name "
                f"a plain function"
            )
        return value
    if not callable(value):
        raise SettingsError(f"{name} is no stage and no function, but {type(value).__name__}")
    if reads is None:
        raise SettingsError(f"{name} is a plain function: name its queue with --reads QUEUE")
    first = writes[0] if writes else None
    try:
        return stage(reads, list(writes) if writes and len(writes) > 1 else first)(value)
    except TypeError as error:
        raise SettingsError(str(error)) from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"cannot import {name!r}: {error}; run this command in the module's folder, or install "
            f"the module"
        ) from error
    except Exception as error:  # a module of the user's can raise anything
        [*_, last] = traceback.extract_tb(error.__traceback__)
        raise SettingsError(
            f"importing {name!r} failed in {last.filename}, line {last.lineno}: "
            f"{reason_of(error)}; try it alone: python -c 'import {name}'"
        ) from error


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        near = difflib.get_close_matches(name, dir(module), 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise SettingsError(f"module {module.__name__!r} has no {name!r}{hint}") from None


def parse_delays(text: str) -> tuple[float, ...]:
    """Return ``"0.2,1,5"`` as seconds; the empty text means no retry."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"--retry-delays is {text!r}: it must be seconds with commas, like 0.2,1,5"
        ) from None
