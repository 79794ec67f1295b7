"""Edits messages: a function of the caller's replaces their data, and nothing is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mousetrap.display.safe_text import class_name
from mousetrap.errors import MousetrapError
from mousetrap.model.encoding import encode
from mousetrap.model.headers import EDITED
from mousetrap.model.message import Message
from mousetrap.worker.handler import Handler


def edited(message: Message, handler: Handler) -> Message:
    """Return a copy of *message*, marked as edited, with the data that *handler* returns for it.

    Raises:
        MousetrapError: the handler raised an exception or returned None; names the message.
    """
    try:
        data = handler.function(*handler.arguments(message))
        body = encode(data)
    except Exception as error:
        raise MousetrapError(
            f"{handler.name} failed with message {message.short_id}: {class_name(error)}; "
            f"nothing was edited: correct the function, or select messages with ids=..."
        ) from error
    if data is None and message.content:
        what = f"{handler.name} returned None for message {message.short_id}"
        raise MousetrapError(f"{what}: return the data to send; nothing was edited")
    return message.copy(message.attempt, {**message.headers, EDITED: True}, body)


def editor(function: Callable[[Any], Any]) -> Handler:
    """Return *function* as a handler, which decodes the data as a stage does."""
    try:
        inspect.signature(function)
    except ValueError:  # built-ins such as `str` and `max` have no signature to read
        return Handler(lambda data: function(data), getattr(function, "__name__", None))
    return Handler(function)
