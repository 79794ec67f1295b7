"""The connection to the broker: the only folder that imports pika.

From the socket outwards:

- `fast_connection`, `pika_patches`: pika's connection, made faster and corrected; `io_thread`: the
  thread that runs it; `connection`: reconnects, for a `session`; `lost_queues`: those that are
  gone then; `declarer`: declares what is missing.
- `publisher` with `publish_window`, `unconfirmed`, `writing`, `confirming` and `receipt`: publishes
  and their outcomes. `process_end`: those under way when the process ends.
- `consumer` with `delivery` and `redeliveries`: deliveries and acks.
- `properties`: a message's AMQP properties. `error_translation` and `reply_codes`: translate
  settings and declarations to pika, and its errors to ours.
- `blocking_channel` with `blocking_declaring`: what `open_channel` returns; `queue_depth`: depths
  of queues; `exclusive_queue`: requests and replies; `declared_queues`: names of declared queues.

These modules do not call pika themselves: `publish_window`, `unconfirmed`, `confirming`, `receipt`,
`delivery`, `redeliveries`, `reply_codes`, `declared_queues`.
"""
