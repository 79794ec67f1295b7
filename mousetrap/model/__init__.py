"""What messages, queues and runs are, and every decision about them. No I/O, no threads, no pika."""
