"""The connection to the broker: the only folder that imports pika."""
