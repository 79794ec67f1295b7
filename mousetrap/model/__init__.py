"""What messages, queues and runs are, and every decision about them: no I/O, no pika."""
