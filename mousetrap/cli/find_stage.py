"""Finds the stage or the flow that a person names: ``fetch``, ``module:attribute``, or a module."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mousetrap.cli.import_path import import_from_here
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
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
            f"{_stages_to_choose(module_name)}"
        )
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


def find_flow(names: Sequence[str]) -> Flow:
    """Return the flow of all stages that *names* name.

    A name is that of a stage (see `find_stage`), of a list of stages or a `Flow`
    (``module:attribute``), or of a module or package that contains stages.

    Raises:
        SettingsError: there is none, or the stages cannot be a flow; says what to give.
    """
    stages = [each for name in names for each in _stages_of(name)]
    return Flow(list(dict.fromkeys(stages)))


def _stages_of(name: str) -> list[Stage[Any, Any]]:
    module_name, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not module_name:
        raise SettingsError(f"there is no flow {name!r}: use a module, or module:attribute")
    value: Any = _import(module_name)
    if attribute:
        value = _attribute(value, attribute)
    if isinstance(value, ModuleType):
        return _stages_in(value)
    if isinstance(value, Flow):
        return value.stages
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    if not listed or not all(isinstance(each, Stage) for each in listed):
        raise SettingsError(
            f"{name} is no stage and no list of stages, but {type(value).__name__}: name a "
            f"function decorated with @stage, a list of those, or their module"
        )
    return listed


def _stages_in(module: ModuleType) -> list[Stage[Any, Any]]:
    """Return the stages of *module*; of a package without any, those of its modules."""
    found = [each for each in vars(module).values() if isinstance(each, Stage)]
    if not found and hasattr(module, "__path__"):
        names = [each.name for each in pkgutil.iter_modules(module.__path__)]
        inside = [_import(f"{module.__name__}.{each}") for each in names if each != "__main__"]
        found = [each for one in inside for each in vars(one).values() if isinstance(each, Stage)]
    if not found:
        raise SettingsError(
            f"module {module.__name__!r} has no stage: decorate a function with @stage, or name "
            f"module:attribute"
        )
    return found


def _import(name: str) -> ModuleType:
    import_from_here()
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
        hint = f": did you mean {near[0]}?" if near else _stages_to_choose(module.__name__)
        raise SettingsError(f"module {module.__name__!r} has no {name!r}{hint}") from None


def _stages_to_choose(module_name: str) -> str:
    """Return a hint that names the stages of the module, or nothing if there is none."""
    try:
        stages = _stages_in(_import(module_name)) if module_name else []
    except SettingsError:
        return ""
    named = ", ".join(f"{each.function.__module__}:{each.function.__name__}" for each in stages)
    return f" (its stages are {named}; one command works on one of them)" if named else ""


def parse_delays(text: str) -> tuple[float, ...]:
    """Return ``"0.2,1,5"`` as seconds; the empty text means no retry."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"--retry-delays is {text!r}: it must be seconds with commas, like 0.2,1,5"
        ) from None
