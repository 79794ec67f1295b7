"""Exchanges as values: names, types and keys, and which bindings a key matches."""

from __future__ import annotations

import pytest

from mousetrap.errors import SettingsError
from mousetrap.model.exchanges import Exchange, RoutingKey


def country(order):
    return order["country"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Exchange(""), "exchange name '' is empty"),
        (lambda: Exchange("x" * 191), "longer than 190 bytes"),
        (lambda: Exchange("a\nb"), "control characters"),
        (lambda: Exchange("orders", "headers"), "has the type 'headers': use one of direct, topic"),
        (lambda: Exchange("orders")[5], "the routing key for exchange 'orders' is a int"),
        (lambda: Exchange("orders")["x" * 256], "is longer than 255 bytes"),
        (lambda: Exchange("orders")["\ud800"], "is not valid UTF-8"),
        (lambda: Exchange("orders")[country].of({"country": 3}), "that country returned for exch"),
        (lambda: list(Exchange("orders")), "the routing key for exchange 'orders' is a int"),
    ],
)
def test_exchange_refuses_what_no_broker_can_have(make, reason):
    """A name, a type or a key that cannot work is an error where it is written."""
    with pytest.raises(SettingsError, match=reason):
        make()


def test_exchange_with_a_key_is_a_value():
    """Two that are written alike are equal, and a function gives the key for a value."""
    orders = Exchange("orders", "topic")

    assert orders["paid"] == RoutingKey(Exchange("orders"), "paid") != orders["sent"]
    assert orders[country].of({"country": "de"}) == orders["de"]
    assert [str(each) for each in (orders, orders["paid"], orders[country])] == [
        "orders", "orders[paid]", "orders[country(...)]",
    ]  # fmt: skip
    assert str(orders[lambda _: ""]) == "orders[key(...)]"


@pytest.mark.parametrize(
    ("pattern", "key", "found"),
    [("order.*.paid", "order.de.paid", True), ("order.*.paid", "order.paid", False),
     ("order.#", "order", True), ("#", "", True), ("*", "", False), ("", "", True)],
)  # fmt: skip
def test_topic_patterns(pattern, key, found):
    """The rule is the embedded broker's, whose tests compare it with RabbitMQ."""
    assert Exchange("orders", "topic")[pattern].matches(key) is found


@pytest.mark.parametrize(("type", "found"), [("direct", [True, False]), ("fanout", [True, True])])
def test_direct_and_fanout_exchanges_match_as_in_rabbitmq(type, found):
    """Direct: the key itself, without patterns. Fanout: every key."""
    binding = Exchange("orders", type)["a.*"]

    assert [binding.matches("a.*"), binding.matches("a.b")] == found
