"""What the fault tests use: a checked ledger, workers with known mistakes, brokers to be killed.

``tests/README.md`` describes it. The proxy that injects faults is the package's own:
`mousetrap.fault_injection.proxy`.
"""
