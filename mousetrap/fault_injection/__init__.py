"""Fault injection: a proxy in front of the broker that breaks connections on request.

`injector.Faults`, which is `mousetrap.faults`, injects faults and records what became of each
(`fault`). `proxy.Proxy` forwards what clients and broker send, and cuts, drops, delays or slices
it, at once or at a step of the protocol; `frames` parses the protocol for it. It needs no root
rights and listens on loopback only.
"""
