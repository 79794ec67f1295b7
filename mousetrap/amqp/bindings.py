"""Declares bindings once, with the exchanges that they need."""

from __future__ import annotations

from collections.abc import Sequence

from mousetrap.amqp.publisher import Publisher
from mousetrap.model.topology import AnyDeclaration
from mousetrap.settings import Settings


def declare_bindings(
    declarations: Sequence[AnyDeclaration], settings: Settings, timeout: float
) -> None:
    """Declare *declarations*, as `Topology.bindings` returns them, within *timeout* seconds.

    Raises what `Connection.open` raises.
    """
    if declarations:
        limited = settings.replace(connect_timeout=min(600.0, max(0.1, timeout)))
        publisher = Publisher(limited, "question")
        publisher.declare(declarations)
        publisher.open().close()
