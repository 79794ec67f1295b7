"""Splits the URL of a broker into settings; no error quotes it, as it may have a password."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from mousetrap.errors import SettingsError

_NO_COUNTERPART = "remove it, it has no counterpart here"
_CONNECT = "remove it and set MOUSETRAP_CONNECT_TIMEOUT (seconds)"
_CERTIFICATES = (
    "remove it; amqps:// verifies the broker, and RABBITMQ_TLS_CA, RABBITMQ_TLS_CERT and "
    "RABBITMQ_TLS_KEY name the files of certificates"
)
# Parameters that other clients take in a URL, with what to do here.
_QUERY = {
    "heartbeat": "", "connection_timeout": _CONNECT, "socket_timeout": _CONNECT,
    "stack_timeout": _CONNECT,
    "blocked_connection_timeout": "remove it and set MOUSETRAP_CONFIRM_TIMEOUT (seconds)",
    **dict.fromkeys(("ssl_options", "verify", "cacertfile", "certfile", "keyfile",
                     "server_name_indication"), _CERTIFICATES),
    **dict.fromkeys(("connection_attempts", "retry_delay", "channel_max", "frame_max", "locale",
                     "client_properties", "tcp_options", "auth_mechanism"), _NO_COUNTERPART),
}  # fmt: skip


def parts_of_url(url: str) -> dict[str, Any]:
    """Split an AMQP URL (https://www.rabbitmq.com/docs/uri-spec); an error never quotes it."""
    problem = SettingsError(
        "RABBITMQ_URL must look like amqp://user:password@host:5672/vhost, with /, @, :, ? and # "
        "in a user, password or vhost written as %2F, %40, %3A, %3F and %23; several hosts have "
        "commas between them: @host1,host2:5673/"
    )
    try:
        _, at, places = urlsplit(url).netloc.rpartition("@")
        first, *others = places.split(",")
        parts = urlsplit(url.replace(f"{at}{places}", f"{at}{first}", 1) if others else url)
        port = parts.port
        user, password, vhost, host = (
            unquote(each or "", errors="strict")
            for each in (parts.username, parts.password, parts.path[1:], parts.hostname)
        )
    except ValueError:
        raise problem from None
    if parts.scheme not in ("amqp", "amqps") or not host:
        raise problem
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query and set(query) <= set(_QUERY):
        return parts_of_url(url.partition("?")[0]) | _from_query(query)
    # A query, a fragment or a second @: the password contains a ?, # or / that is not escaped.
    if parts.query or parts.fragment or "@" in parts.path:
        raise problem
    tls = parts.scheme == "amqps"
    values: dict[str, Any] = {"host": host, "port": port}
    if port is None:
        values["port"] = 5671 if tls else 5672
    values["tls"] = tls
    if others:
        values["more_hosts"] = tuple(others)
    if parts.username is not None:
        values["user"] = user
    if parts.password is not None:
        values["password"] = password
    if parts.path not in ("", "/"):
        values["vhost"] = vhost
    return values


def _from_query(query: dict[str, str]) -> dict[str, Any]:
    """Return the settings in a URL's query; each parameter that has none is an error by name."""
    for name in query:
        if what_to_do := _QUERY[name]:
            raise SettingsError(
                f"RABBITMQ_URL has the parameter {name}, which is not supported: {what_to_do}"
            )
    try:
        return {"heartbeat": float(query["heartbeat"])}
    except ValueError:
        raise SettingsError("RABBITMQ_URL: heartbeat must be a number of seconds") from None
