"""What the tests of FAULTS use: a ledger that is checked, workers that are wrong, real processes.

The proxy is `mousetrap.fault_injection.proxy`; a broker that may be killed is the fixture `node`.
"""
