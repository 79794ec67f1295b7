"""What handlers print, log and display, kept with the message that each was handling.

A kernel shows what a thread prints in some cell: ipykernel before 7.1 in the one that started the
thread, since then in the newest. Neither is the message's place. So while somebody records, what
stands in for ``sys.stdout`` and ``sys.stderr`` asks first whose message this thread or coroutine
has in hand; whoever has none prints as ever.

Changing `write` of the streams themselves does not last: IPython 9 does that too, for each cell,
and puts back what it found. What a handler's child process prints, or a thread that it started, is
not known to be its own.
"""

from __future__ import annotations

import html
import logging
import re
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar, Token
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.model.message import Message
from mousetrap.runtime import clock, threads
from mousetrap.runtime.environment import shell

MOST_OF_ONE = 10_000  # characters of one handling; its end is kept, where failures are
MOST = 1_000_000  # characters of one recorder
STREAMS = ("stdout", "stderr")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_page: ContextVar[Page | None] = ContextVar("mousetrap.page", default=None)
_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Page:
    """What was printed while one message was handled once."""

    __slots__ = ("_chunks", "_recorder", "at", "attempt", "cut", "id", "is_kept", "size")

    def __init__(self, recorder: Recorder, message: Message) -> None:
        self.id = message.id
        self.attempt = message.attempt
        self.at = clock.time()  # seconds since 1970
        self.size = 0  # characters kept
        self.cut = 0  # characters that came before and are not kept
        self.is_kept = False
        self._recorder = recorder
        self._chunks: deque[str] = deque()

    def write(self, text: str) -> int:
        """Add *text*; return its length, as streams do."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._recorder.add(self, text)
        return len(text)

    def append(self, text: str) -> None:
        """Add *text* and let go of what is too old; only the recorder calls this."""
        tail = text[-MOST_OF_ONE:]
        self.size += len(tail)
        self.cut += len(text) - len(tail)
        if self._chunks and len(self._chunks[-1]) < 1000:  # a print is two writes, or ten
            self._chunks[-1] += tail
        else:
            self._chunks.append(tail)
        while self.size > MOST_OF_ONE:
            oldest = self._chunks.popleft()
            kept = oldest[self.size - MOST_OF_ONE :]
            self.size -= len(oldest) - len(kept)
            self.cut += len(oldest) - len(kept)
            if kept:
                self._chunks.appendleft(kept)

    @property
    def text(self) -> str:
        """What is kept, as it was written."""
        with self._recorder.lock:
            return "".join(self._chunks)

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        return next((line for line in reversed(self.lines()) if line.strip()), "")

    def lines(self) -> list[str]:
        """What is kept, fit to be shown: nothing in it acts on a terminal or a page."""
        cut = [f"... {self.cut:,} characters before"] if self.cut else []
        # a progress bar begins its line anew: the last state of the line is the one to show
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in self.text.split("\n"))
        shown = [safe(_COLOUR.sub("", line)) for line in lines]
        return cut + (shown[:-1] if shown[-1] == "" else shown)


class Recorder:
    """Keeps what is printed: give it to a worker as its `around`, and `start` it.

    The oldest output is forgotten when there are more than `MOST` characters, and of one handling
    the last `MOST_OF_ONE` are kept.

    Threads: any.
    """

    def __init__(self) -> None:
        # A lock that its owner may take again: collecting garbage inside may print as well.
        self.lock = threads.RLock()
        self._pages: deque[Page] = deque()
        self._size = 0
        _recorders.add(self)

    def start(self) -> None:
        """Begin to divert what is printed while a message is handled."""
        _diversion.start(self)

    def stop(self) -> None:
        """Divert no more on behalf of this one; what was kept stays."""
        _diversion.stop(self)

    def __call__(self, message: Message) -> _Recording:
        """Return a context manager in which *message* is to be handled."""
        return _Recording(Page(self, message))

    def add(self, page: Page, text: str) -> None:
        """Keep *text* on *page*, and forget the oldest pages for it if need be."""
        with self.lock:
            if not page.is_kept:
                page.is_kept = True
                self._pages.append(page)
                self._size += page.size
            before = page.size
            page.append(text)
            self._size += page.size - before
            while self._size > MOST:
                oldest = self._pages.popleft()
                oldest.is_kept = False
                self._size -= oldest.size

    def pages(self, id: str | None = None) -> list[Page]:
        """What is kept, the oldest first; of message *id* alone if it is given."""
        with self.lock:
            return [page for page in self._pages if id is None or page.id == id]


class Outputs(Sequence[Page]):
    """Output to look at: of each handling its message, its attempt and what was printed."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, index: Any) -> Any:
        return Outputs(self._pages[index]) if isinstance(index, slice) else self._pages[index]

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages)

    def __str__(self) -> str:
        return "".join(page.text for page in self._pages)

    def __repr__(self) -> str:
        blocks = (f"{_title(page)}\n{_indented(page.lines())}" for page in self._pages)
        return "\n".join(blocks) or "nothing was printed"

    def _repr_html_(self) -> str:
        blocks = (
            f"<p>{html.escape(_title(page))}</p><pre>{html.escape(_indented(page.lines()))}</pre>"
            for page in self._pages
        )
        body = "".join(blocks) or "<p>nothing was printed</p>"
        # the class: what stands between two dollar signs is no formula
        return f"<div class='tex2jax_ignore mathjax_ignore'>{body}</div>"


def of(message_id: str) -> str:
    """Return what handlers of this process printed for a message, in all its attempts."""
    pages = [page for recorder in tuple(_recorders) for page in recorder.pages(message_id)]
    return "".join(page.text for page in sorted(pages, key=lambda page: page.at))


class _Recording:
    """Writes what this thread or coroutine prints on *page*."""

    __slots__ = ("_page", "_token")

    def __init__(self, page: Page) -> None:
        self._page = page
        self._token: Token[Page | None] | None = None

    def __enter__(self) -> Page:
        _diversion.look()
        self._token = _page.set(self._page)
        return self._page

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _page.reset(self._token)


class _Diversion:
    """Puts stand-ins in the place of the streams while anybody records.

    Threads: any.
    """

    def __init__(self) -> None:
        self._lock = threads.RLock()
        self._recorders: set[Recorder] = set()
        self._publisher: Any = None
        self._seen: tuple[Any, Any] = (None, None)  # the streams that were looked at

    def start(self, recorder: Recorder) -> None:
        with self._lock:
            self._recorders.add(recorder)
            for name in STREAMS:
                _stand_in(name)
            publisher = getattr(shell(), "display_pub", None)
            if self._publisher is None and publisher is not None:
                self._publisher = publisher
                publisher.publish = _Publish(publisher.publish)

    def stop(self, recorder: Recorder) -> None:
        with self._lock:
            self._recorders.discard(recorder)
            if self._recorders:
                return
            for name in STREAMS:
                if (stream := _stream_of(getattr(sys, name))) is not None:
                    _move_logging(getattr(sys, name), stream)
                    setattr(sys, name, stream)
            publisher, self._publisher = self._publisher, None
            if publisher is not None and isinstance(publisher.publish, _Publish):
                del publisher.publish

    def look(self) -> None:
        """See to it that the streams of now are ours, should they be others than before."""
        now = (sys.stdout, sys.stderr)
        if now[0] is self._seen[0] and now[1] is self._seen[1]:
            return
        with self._lock:
            for name in STREAMS if self._recorders else ():
                stream = getattr(sys, name)
                # Not what a handler puts there for a while, to have what it prints itself.
                if _is_kernels(stream) or stream is getattr(sys, f"__{name}__"):
                    _stand_in(name)
            self._seen = (sys.stdout, sys.stderr)


class _StandIn:
    """In the place of *stream*: everything is the stream's, but the writing may go on a page.

    It says that it is of the stream's class: ipykernel before 7.1 asks when a thread starts.
    """

    def __init__(self, stream: Any) -> None:
        object.__setattr__(self, "_stream", stream)
        object.__setattr__(self, "_write", _Write(stream, None))

    @property
    def write(self) -> _Write:
        """What `print` looks for."""
        return self._write  # type: ignore[no-any-return]  # by __getattr__

    def writelines(self, lines: Iterable[str]) -> None:
        """As every stream's."""
        for line in lines:
            self.write(line)

    @property  # type: ignore[misc]  # no class is meant to be changed
    def __class__(self) -> type:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "write":
            # IPython puts a writer of its own there for each cell, and ours back afterwards.
            ours = type(value) is _Write
            object.__setattr__(self, "_write", value if ours else _Write(self._stream, value))
        else:
            setattr(self._stream, name, value)

    def __delattr__(self, name: str) -> None:
        if name == "write":
            object.__setattr__(self, "_write", _Write(self._stream, None))
        else:
            delattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __repr__(self) -> str:
        return repr(self._stream)

    def __dir__(self) -> Iterable[str]:
        return dir(self._stream)


class _Write:
    """Writes on the page of the message in hand; without one by *other*, or as the stream does."""

    __slots__ = ("_other", "_stream")

    def __init__(self, stream: Any, other: Callable[..., Any] | None) -> None:
        self._stream = stream
        self._other = other

    def __call__(self, text: str, *args: Any, **kwargs: Any) -> Any:
        page = _page.get()
        if page is not None:
            return page.write(text)
        # looked up each time: while this was made, a cell may have had a writer of its own there
        return (self._other or self._stream.write)(text, *args, **kwargs)


class _Publish:
    """What `display` calls: a page gets the text, else a cell gets it all."""

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish

    def __call__(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        page = _page.get()
        if page is None:
            return self._publish(data, *args, **kwargs)
        page.write(f"{data.get('text/plain') or ', '.join(data)}\n")
        return None


def _stand_in(name: str) -> None:
    stream = getattr(sys, name)
    if stream is not None and _stream_of(stream) is None:
        ours = _StandIn(stream)
        setattr(sys, name, ours)
        _move_logging(stream, ours)


def _stream_of(stream: Any) -> Any:
    """The stream that *stream* stands for; None if it is no stand-in."""
    return object.__getattribute__(stream, "_stream") if type(stream) is _StandIn else None


def _is_kernels(stream: Any) -> bool:
    return type(stream).__module__.startswith("ipykernel")


def _move_logging(old: Any, new: Any) -> None:
    """Have the logging handlers that took *old* when they were made write to *new*."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):  # some are placeholders
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


_diversion = _Diversion()


def _title(page: Page) -> str:
    at = clock.local_time(page.at)
    return f"message {safe(page.id[:8])}, attempt {page.attempt}, {at}"


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
