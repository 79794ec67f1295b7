"""Keeps what handlers print, log and display with the message that each of them handles.

A kernel shows what a thread prints in a cell: ipykernel before 7.1 in the cell that started the
thread, later versions in the newest cell. Neither cell belongs to the message. So while output is
captured, ``sys.stdout`` and ``sys.stderr`` are proxies. A proxy looks up which message this thread
or coroutine handles and keeps the text with it; text from anywhere else goes to the real stream.

Replacing `write` of the real streams does not last: IPython 9 replaces it as well, for each cell,
and restores what it found. Output of a handler's child processes, and of threads that it starts, is
not captured. Log lines of mousetrap and of pika are not the handler's words: they go to the real
stream if logging is configured, and nowhere if it is not (a handle lists the failures that they
report).
"""

from __future__ import annotations

import html
import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from types import FrameType
from typing import Any

from mousetrap.display.cell_log import CellLog
from mousetrap.display.safe_text import safe
from mousetrap.model.message import Message
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.environment import ipython_shell
from mousetrap.worker.hooks import Hook

MAX_ATTEMPT_OUTPUT = 10_000  # characters of one attempt; its end is kept, where failures are
MAX_OUTPUT = 1_000_000  # characters of all attempts that one `OutputCapture` keeps
STREAMS = ("stdout", "stderr")
MAX_FRAMES = 50  # frames above a write that are searched for a logger; a guess, rich needs 20
_CALL_HANDLERS = logging.Logger.callHandlers.__code__  # it passes each record to its handlers
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_current: ContextVar[AttemptOutput | None] = ContextVar("mousetrap.output", default=None)


class AttemptOutput:
    """The output of one attempt to handle a message."""

    __slots__ = ("_capture", "_chunks", "at", "attempt", "cut", "id", "is_kept", "size")

    def __init__(self, capture: OutputCapture, message: Message) -> None:
        self.id = message.id
        self.attempt = message.attempt
        self.at = clock.time()  # seconds since 1970
        self.size = 0  # characters kept
        self.cut = 0  # characters that came before and are not kept
        self.is_kept = False
        self._capture = capture
        self._chunks: deque[str] = deque()

    def write(self, text: str) -> int:
        """Add *text*; return its length, as streams do."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._capture.add(self, text)
        return len(text)

    def append(self, text: str) -> None:
        """Add *text* and drop what is too old; called by `OutputCapture.add` only."""
        tail = text[-MAX_ATTEMPT_OUTPUT:]
        self.size += len(tail)
        self.cut += len(text) - len(tail)
        # Join short texts, because a print makes two or more writes of a few characters.
        if self._chunks and len(self._chunks[-1]) < 1000:
            self._chunks[-1] += tail
        else:
            self._chunks.append(tail)
        while self.size > MAX_ATTEMPT_OUTPUT:
            oldest = self._chunks.popleft()
            kept = oldest[self.size - MAX_ATTEMPT_OUTPUT :]
            self.size -= len(oldest) - len(kept)
            self.cut += len(oldest) - len(kept)
            if kept:
                self._chunks.appendleft(kept)

    @property
    def text(self) -> str:
        """What is kept, as it was written."""
        with self._capture.lock:
            return "".join(self._chunks)

    @property
    def last_line(self) -> str:
        """The last line that is not blank."""
        return next((line for line in reversed(self.lines()) if line.strip()), "")

    def lines(self) -> list[str]:
        """Return what is kept, safe to show: no control character acts on a terminal."""
        cut = [f"... {self.cut:,} characters before"] if self.cut else []
        # a progress bar overwrites its line: only the last state of the line is shown
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in self.text.split("\n"))
        shown = [safe(_COLOUR.sub("", line)) for line in lines]
        return cut + (shown[:-1] if shown[-1] == "" else shown)


class OutputCapture(Hook):
    """Keeps the output of handlers: add it to a worker as a hook, and `start` it.

    When it holds more than `MAX_OUTPUT` characters, the oldest output is dropped; of one attempt
    the last `MAX_ATTEMPT_OUTPUT` characters are kept.

    Threads: any.
    """

    def __init__(self) -> None:
        # Reentrant: a finalizer that runs while the lock is held may print as well.
        self.lock = forks.released_in_child(threads.RLock())
        self._outputs: deque[AttemptOutput] = deque()
        self._size = 0

    def start(self) -> None:
        """Replace the streams by proxies, unless another capture has done so."""
        _redirection.start(self)

    def stop(self) -> None:
        """Restore the streams if no other capture needs the proxies; the output is kept."""
        _redirection.stop(self)

    def handling(self, _: str, message: Message) -> _Capturing:
        """Return a context manager in which output belongs to *message*."""
        return _Capturing(AttemptOutput(self, message))

    def add(self, output: AttemptOutput, text: str) -> None:
        """Add *text* to *output*, and drop the oldest outputs when there is too much in all."""
        with self.lock:
            if not output.is_kept:
                output.is_kept = True
                self._outputs.append(output)
                self._size += output.size
            before = output.size
            output.append(text)
            self._size += output.size - before
            while self._size > MAX_OUTPUT:
                oldest = self._outputs.popleft()
                oldest.is_kept = False
                self._size -= oldest.size

    def outputs(self, id: str | None = None) -> list[AttemptOutput]:
        """Return what is kept, the oldest first; only of message *id* if it is given."""
        with self.lock:
            return [output for output in self._outputs if id is None or output.id == id]


class Outputs(Sequence[AttemptOutput]):
    """Outputs to look at: each is shown with its message, its attempt and its time."""

    def __init__(self, outputs: Sequence[AttemptOutput]) -> None:
        self._outputs = outputs

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, index: Any) -> Any:
        return Outputs(self._outputs[index]) if isinstance(index, slice) else self._outputs[index]

    def __iter__(self) -> Iterator[AttemptOutput]:
        return iter(self._outputs)

    def __str__(self) -> str:
        return "".join(output.text for output in self._outputs)

    def __repr__(self) -> str:
        blocks = (f"{_title(output)}\n{_indented(output.lines())}" for output in self._outputs)
        return "\n".join(blocks) or "nothing was printed"

    def _repr_html_(self) -> str:
        body = "".join(
            f"<p>{html.escape(_title(output))}</p>"
            f"<pre>{html.escape(_indented(output.lines()))}</pre>"
            for output in self._outputs
        )
        body = body or "<p>nothing was printed</p>"
        # the class keeps text between two dollar signs from being typeset as a formula
        return f"<div class='tex2jax_ignore mathjax_ignore'>{body}</div>"


class _Capturing:
    """A context manager in which *output* keeps what this thread or coroutine prints."""

    __slots__ = ("_output", "_token")

    def __init__(self, output: AttemptOutput) -> None:
        self._output = output
        self._token: Token[AttemptOutput | None] | None = None

    def __enter__(self) -> AttemptOutput:
        _redirection.renew()
        self._token = _current.set(self._output)
        return self._output

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


class _Redirection:
    """Puts proxies in the place of the streams while there is a capture.

    Threads: any.
    """

    def __init__(self) -> None:
        self._lock = forks.released_in_child(threads.RLock())
        self._captures: set[OutputCapture] = set()
        self._display_publisher: Any = None  # IPython's, whose `publish` was replaced
        self._seen: tuple[Any, Any] = (None, None)  # the streams at the last `renew`

    def start(self, capture: OutputCapture) -> None:
        with self._lock:
            self._captures.add(capture)
            for name in STREAMS:
                _install_proxy(name)
            publisher = getattr(ipython_shell(), "display_pub", None)
            if self._display_publisher is None and publisher is not None:
                self._display_publisher = publisher
                publisher.publish = _CapturingPublish(publisher.publish)

    def stop(self, capture: OutputCapture) -> None:
        with self._lock:
            self._captures.discard(capture)
            if self._captures:
                return
            for name in STREAMS:
                if (stream := _stream_of(getattr(sys, name))) is not None:
                    _move_logging(getattr(sys, name), stream)
                    setattr(sys, name, stream)
            publisher, self._display_publisher = self._display_publisher, None
            if publisher is not None and isinstance(publisher.publish, _CapturingPublish):
                del publisher.publish

    def renew(self) -> None:
        """Install the proxies again if other streams have been put in their place."""
        now = (sys.stdout, sys.stderr)
        if now[0] is self._seen[0] and now[1] is self._seen[1]:
            return
        with self._lock:
            for name in STREAMS if self._captures else ():
                stream = getattr(sys, name)
                # not over a stream that a handler has put there to capture its own output
                if _is_kernels(stream) or stream is getattr(sys, f"__{name}__"):
                    _install_proxy(name)
            self._seen = (sys.stdout, sys.stderr)


class _StreamProxy:
    """Takes the place of *stream*: it behaves like the stream, but `write` may be captured.

    Its ``__class__`` is the stream's, because ipykernel before 7.1 checks it when a thread starts.
    """

    def __init__(self, stream: Any) -> None:
        object.__setattr__(self, "_stream", stream)
        object.__setattr__(self, "_write", _Writer(stream, None))

    @property
    def write(self) -> _Writer:
        """The method that `print` looks up."""
        return self._write  # type: ignore[no-any-return]  # by __getattr__

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of *lines*."""
        for line in lines:
            self.write(line)

    @property  # type: ignore[misc]  # no class is meant to be changed
    def __class__(self) -> type:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "write":
            # IPython assigns a writer of its own for each cell, and restores ours afterwards.
            ours = type(value) is _Writer
            object.__setattr__(self, "_write", value if ours else _Writer(self._stream, value))
        else:
            setattr(self._stream, name, value)

    def __delattr__(self, name: str) -> None:
        if name == "write":
            object.__setattr__(self, "_write", _Writer(self._stream, None))
        else:
            delattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __repr__(self) -> str:
        return repr(self._stream)

    def __dir__(self) -> Iterable[str]:
        return dir(self._stream)


class _Writer:
    """Writes to the output of the current attempt; without one to *other* or the stream."""

    __slots__ = ("_other", "_stream")

    def __init__(self, stream: Any, other: Callable[..., Any] | None) -> None:
        self._stream = stream
        self._other = other

    def __call__(self, text: str, *args: Any, **kwargs: Any) -> Any:
        output = _current.get()
        if output is not None:
            log_call = _log_call_of_ours()
            if log_call is None:
                return output.write(text)
            # No handler is configured: this is `logging.lastResort`, or its like of a kernel.
            if not log_call["found"] or isinstance(log_call.get("hdlr"), CellLog):
                return len(text)
        # `write` is looked up each time: it may have been a cell's writer when this object was made
        return (self._other or self._stream.write)(text, *args, **kwargs)


class _CapturingPublish:
    """Takes the place of IPython's `publish`, which `display` calls: an attempt keeps the text."""

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish

    def __call__(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        output = _current.get()
        if output is None:
            return self._publish(data, *args, **kwargs)
        output.write(f"{data.get('text/plain') or ', '.join(data)}\n")
        return None


def _install_proxy(name: str) -> None:
    stream = getattr(sys, name)
    if stream is not None and _stream_of(stream) is None:
        proxy = _StreamProxy(stream)
        setattr(sys, name, proxy)
        _move_logging(stream, proxy)


def _stream_of(stream: Any) -> Any:
    """Return the stream behind the proxy *stream*; None if it is no proxy."""
    return object.__getattribute__(stream, "_stream") if type(stream) is _StreamProxy else None


def _log_call_of_ours() -> Mapping[str, Any] | None:
    """Return the variables of `Logger.callHandlers` if a record of mousetrap or pika is written."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        if frame.f_code is _CALL_HANDLERS:
            variables = frame.f_locals
            owner = variables["record"].name.partition(".")[0]
            return variables if owner in ("mousetrap", "pika") else None
        frame = frame.f_back
    return None


def _is_kernels(stream: Any) -> bool:
    return type(stream).__module__.startswith("ipykernel")


def _move_logging(old: Any, new: Any) -> None:
    """Have the logging handlers that write to *old* write to *new*."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):  # some are placeholders
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


_redirection = _Redirection()


def _title(output: AttemptOutput) -> str:
    at = clock.local_time(output.at)
    return f"message {safe(output.id[:8])}, attempt {output.attempt}, {at}"


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
