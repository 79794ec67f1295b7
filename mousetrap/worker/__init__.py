"""Runs functions on the messages of a queue, in threads, coroutines or processes."""
