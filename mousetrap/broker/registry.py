"""The kinds of broker, in the order in which they are tried, and the choice between them."""

from __future__ import annotations

import os

from mousetrap.broker.broker import Broker
from mousetrap.broker.docker import Docker
from mousetrap.broker.embedded import Embedded
from mousetrap.broker.external import External, is_named
from mousetrap.broker.kind import BrokerKind
from mousetrap.broker.local import Local
from mousetrap.broker.probe import Log
from mousetrap.errors import BrokerSetupError, SettingsError, WireError
from mousetrap.runtime import clock
from mousetrap.settings import Settings

_EXTERNAL = External()
_KINDS: tuple[BrokerKind, ...] = (
    _EXTERNAL,
    Docker(),
    Local(),
    Embedded(),
)
KINDS = {each.name: each for each in _KINDS}
"""Each kind of broker by its name, in the order in which `choose` tries them."""


def kind_named(name: str) -> BrokerKind:
    """Return the kind called *name*.

    Raises:
        SettingsError: there is none; the error names those that exist.
    """
    if name not in KINDS:
        raise SettingsError(
            f"there is no kind of broker called {name!r}: use one of {', '.join(KINDS)} "
            f"(--broker or MOUSETRAP_BROKER)"
        )
    return KINDS[name]


def choose(
    name: str | None, settings: Settings | None, timeout: float, log: Log, *, stays: bool
) -> Broker:
    """Return a broker of the kind *name*, or of the first kind that works.

    Without *name* and ``MOUSETRAP_BROKER``: a broker that the environment names is used, and no
    other in its place. Otherwise the broker that answers at the address of the settings, if it
    accepts the login, then the other kinds in the order of `KINDS`. *stays* asks for one that
    stays up after this process.
    """
    settings = settings or Settings.from_environment()
    name = name or os.environ.get("MOUSETRAP_BROKER") or None
    if name is None and is_named(settings):
        name = _EXTERNAL.name
    deadline = clock.monotonic() + timeout

    def start(kind: BrokerKind) -> Broker:
        use = kind.up if stays else kind.join
        return use(settings, deadline - clock.monotonic(), log)

    if name is not None:
        return start(kind_named(name))
    if running := _EXTERNAL.answering(settings, log):
        return running
    reasons = []
    for kind in KINDS.values():
        if kind is _EXTERNAL or (stays and kind.is_in_process):
            continue
        try:
            return start(kind)
        except (BrokerSetupError, WireError) as error:
            log(f"not using {kind.name}: {error}")
            reasons.append(f"{kind.name}: {error}")
    embedded = "\nOr run one in memory, in a terminal of its own: mousetrap broker up --embedded"
    raise BrokerSetupError(
        "no broker could be started; what each kind needs:\n  "
        + "\n  ".join(reasons)
        + embedded * stays
    )
