"""Messages, queues, outcomes and runs as values, and all decisions about them.

Nothing here does I/O or imports pika, so tests of it take microseconds.
"""
