"""Functions bound to queues (stages), the flows they form, and what people do with one queue."""
