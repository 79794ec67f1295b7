"""What every part needs of the process it runs in: signals, interrupts, exit codes, files.

Nothing here knows of messages or brokers.
"""
