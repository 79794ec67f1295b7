"""Has RabbitMQ 4.3 lose the timer by which a quorum queue takes back messages that are not acked.

RabbitMQ does so itself now and then: `mousetrap.amqp.overdue_acks` says when.
"""

from __future__ import annotations

from mousetrap.broker import RabbitMQNode
from rig.brokers import Container

LATER = 250  # milliseconds

# The queue's process keeps the time for which it has set its timer. When the timer fires, it does
# not set it again if that time is still to come, and the next ack is not due before.
_LOSE = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
{Name, _} = amqqueue:get_pid(Queue),
Change = fun(#{aux_state := Aux} = Server) when element(1, Aux) =:= aux_v4 ->
                 Server#{aux_state := setelement(4, Aux, element(4, Aux) + %d)};
            (Part) -> Part end,
{_, Before} = sys:get_state(Name),
[Due] = [element(4, Aux) || #{aux_state := Aux} <- tuple_to_list(Before)],
sys:replace_state(Name, fun({Role, State}) ->
    {Role, list_to_tuple([Change(Part) || Part <- tuple_to_list(State)])} end),
is_integer(Due) andalso erlang:system_time(millisecond) < Due.
"""


def lose_ack_timer(broker: Container | RabbitMQNode, queue: str) -> bool:
    """Have *queue* lose its timer when that fires next; return False if it was too late for that.

    A message of it must have been acked, and a second one be held that was delivered more than
    `LATER` milliseconds after the first.
    """
    return broker.rabbitmqctl("eval", _LOSE % (queue, LATER)).strip() == "true"
