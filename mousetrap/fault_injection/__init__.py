"""Faults on purpose: a wire to the broker that breaks when it is told to.

`planting.Faults`, which is `mousetrap.faults`, plants them and keeps account (`injected`).
`proxy.Proxy` passes on what clients and broker say, and cuts, holds, delays or slices it, at once
or at a step of the protocol; `frames` tells it the steps. Needs no root, listens on loopback only.
"""
