"""Stages (functions bound to queues), the flows that they form, sending, and dead letters."""
