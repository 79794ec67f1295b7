"""The process and its surroundings: clock, randomness, threads, signals, exit codes, files.

Nothing here knows of messages or brokers.
"""
