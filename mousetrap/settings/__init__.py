"""Where the broker is, how queues are declared, and all time-outs: one immutable value.

`Settings.from_environment` reads the environment when it is called, never at import. The variables
of the tutorial (``RABBITMQ_HOST``, ``RABBITMQ_USER``, ``RABBITMQ_PASSWORD``) have its defaults. All
times are in seconds.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from mousetrap.display.field_table import field_table
from mousetrap.errors import SettingsError
from mousetrap.model.topology import EVENTS_EXCHANGE, Topology
from mousetrap.settings.amqp_url import parts_of_url

T = TypeVar("T")

MASK = "********"


def _no_settings() -> Settings | None:
    return None


# Returns the settings of the worker whose handler calls it; `mousetrap.worker.handling` sets it.
inside_handler: Callable[[], Settings | None] = _no_settings


@dataclass(frozen=True)
class Settings:
    """Everything needed to reach a broker; its `repr` masks the password.

    ``Settings()`` is the tutorial's development broker. Values are checked when the object is made.

    Raises:
        SettingsError: a value cannot work; the error names it and says what is allowed.
    """

    host: str = "localhost"
    more_hosts: tuple[str, ...] = ()  # tried if `host` does not answer: "host2", "host3:5673"
    port: int = 5672
    user: str = "DEV_USER"
    password: str = field(default="CHANGE_ME", repr=False)
    vhost: str = "/"
    password_file: str = ""  # read again at each connection attempt; "": the password stays
    tls: bool = False  # amqps://: certificate and host name are verified
    tls_ca: str = ""  # file of the authorities that are trusted; "": those of the system
    tls_cert: str = ""  # file of this client's certificate, if the broker wants one
    tls_key: str = ""  # file of its key; "": in the file of the certificate

    namespace: str = ""  # prefix of all queue names: "run-7f3a" -> "run-7f3a.start_fetch"
    queue_type: str = "classic"  # or "quorum"
    declare: str = "missing"  # what is declared outside of runs; "never": all must exist already
    # Runs, checks and tests set it, and their child processes inherit it; a namespace alone never
    # makes queues expire, because it may be a team's prefix for queues that must stay.
    queues_expire: bool = False
    queue_expiry: float = 86_400.0  # seconds without use until then: a day, longer than a night
    events_exchange: str = EVENTS_EXCHANGE  # workers publish outcomes here; "": they publish none
    keep_bodies: int = 0  # bytes; an outcome includes the message's body up to this size

    heartbeat: float = 60.0  # the broker's own default; 0 switches heartbeats off
    connect_timeout: float = 3.0  # for the first connection; a lost one is restored without limit
    confirm_timeout: float = 30.0  # after this time a publish without an answer is `unknown`
    max_in_flight: int = 2000  # unconfirmed publishes; measured: more is not faster

    def __post_init__(self) -> None:
        limits = {
            "port": (1, 65_535), "queue_expiry": (1, 86_400 * 7), "heartbeat": (0, 3600),
            "connect_timeout": (0.1, 600), "confirm_timeout": (0.05, 3600),
            "max_in_flight": (1, 65_535), "keep_bodies": (0, 1_000_000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value!r}: it must lie in {low}..{high}")
        if not self.host:
            raise SettingsError("host is empty: give a name or an address, e.g. localhost")
        if re.search(r"[/@\s\x00-\x1f]", self.host):  # not quoted: it may be a URL with a password
            raise SettingsError(
                "host is not a name or an address: put a URL into RABBITMQ_URL, or split it up"
            )
        try:
            self.host.encode("idna")
        except UnicodeError:
            raise SettingsError(f"host is {self.host[:80]!r}: that is not a host name") from None
        for name in ("user", "password", "vhost"):
            if re.search(r"[\ud800-\udfff]", getattr(self, name)):  # from bytes that are not UTF-8
                raise SettingsError(f"{name} is not valid UTF-8: check how the variable was set")
        _ = self.places  # refuses what is no host
        if self.tls_key and not self.tls_cert:
            raise SettingsError("tls_key is set and tls_cert is not: set it to the certificate")
        if self.queue_type not in ("classic", "quorum"):
            raise SettingsError(f"queue_type is {self.queue_type!r}: use 'classic' or 'quorum'")
        if self.declare not in ("missing", "never"):
            raise SettingsError(f"declare is {self.declare!r}: use 'missing' or 'never'")
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{0,100}", self.events_exchange):
            raise SettingsError(
                f"events_exchange is {self.events_exchange[:60]!r}: use up to 100 letters, digits, "
                f"'_', '-', '.', ':', or an empty text to switch events off"
            )
        if f"{self.namespace}.".startswith("amq."):
            raise SettingsError(
                f"namespace is {self.namespace[:60]!r}: queues that begin with 'amq.' are the "
                f"broker's own: use another word"
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,40}", self.namespace):
            raise SettingsError(
                f"namespace is {self.namespace[:60]!r}: use up to 40 letters, digits, '_', '-', '.'"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Return settings from ``RABBITMQ_*`` and ``MOUSETRAP_*``; unset ones keep their defaults.

        ``RABBITMQ_URL`` (``amqp://user:password@host:port/vhost``) has priority over its parts: the
        variables of the parts that it has are not read. ``RABBITMQ_PASSWORD_FILE`` names a file
        with the password, as a container's secrets are given. Kubernetes sets ``RABBITMQ_PORT`` to
        ``tcp://10.0.0.1:5672`` beside a Service called rabbitmq: the port is taken from it.

        Inside a handler it returns the settings of the handler's worker, so everything that a
        handler opens without settings stays in the worker's namespace. Give *environment*
        (``os.environ``) to read the variables there.

        Raises:
            SettingsError: a variable has a bad value; the error names the variable, the value
                (never a password) and what is allowed.
        """
        if environment is None and (of_worker := inside_handler()) is not None:
            return of_worker
        environment = os.environ if environment is None else environment
        _warn_of_misspelt(environment)
        url = _read(environment, "RABBITMQ_URL")
        values = parts_of_url(url) if url else {}
        in_url = set(values)
        for name, (variable, convert) in _VARIABLES.items():
            text = environment.get(variable)
            if name in in_url or text is None:
                continue
            if name not in _MAY_BE_EMPTY and not text.strip():
                continue
            try:
                values[name] = convert(_clean(text, is_password=name == "password"))
            except ValueError as error:
                raise SettingsError(f"{variable} is {_shown(text)}: {error}") from None
        if "password" in in_url:
            values.pop("password_file", None)
        elif path := values.get("password_file"):
            if environment.get("RABBITMQ_PASSWORD"):
                raise SettingsError(
                    f"RABBITMQ_PASSWORD and {PASSWORD_FILE} are both set: set one of them"
                )
            values["password"] = _password_from(path)
        if environment.get("RABBITMQ_TLS", "").strip().lower() in _YES and not values.get("tls"):
            _warn_once("RABBITMQ_TLS", "RABBITMQ_URL begins with amqp://, without TLS")
        for name in ("tls_ca", "tls_cert", "tls_key"):
            if values.get(name) and not values.get("tls"):
                _warn_once(_VARIABLES[name][0], "TLS is off: use amqps://, or RABBITMQ_TLS=1")
        if "," in str(values.get("host", "")):
            values["host"], *others = map(str.strip, values["host"].split(","))
            values["more_hosts"] = tuple(others)
        if values.get("tls") and "port" not in values:
            values["port"] = TLS_PORT
        try:
            return cls(**values)
        except SettingsError as error:
            name = str(error).split()[0]
            if name not in values:
                raise
            variable = "RABBITMQ_URL" if name in in_url else _VARIABLES[name][0]
            raise SettingsError(f"{variable}: {error}") from None

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with some values changed: ``settings.replace(namespace="run-7f3a")``."""
        return dataclasses.replace(self, **changes)

    def _repr_html_(self) -> str:
        variables = {name: variable for name, (variable, _) in _VARIABLES.items()}
        table = field_table(
            self, "Settings", units=_UNITS, variables=variables, names=("port",), unshown=_UNSHOWN
        )
        return table._repr_html_()

    @property
    def url(self) -> str:
        """The address with a masked password, for logs: ``amqp://me:********@host:5672/%2F``."""
        return self._url(f":{MASK}")

    def present_password(self) -> str:
        """Return the password as it stands in `password_file` now, or the one that was given.

        A file that cannot be read at this moment, because it is being replaced, changes nothing.
        """
        try:
            return _password_from(self.password_file) if self.password_file else self.password
        except SettingsError:
            return self.password

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give a child process the same settings.

        The password is among them, if it is in no file: use them only as the environment of a child
        process.
        """
        password = "" if self.password_file else f":{quote(self.password, safe='')}"
        return {"RABBITMQ_URL": self._url(password), "RABBITMQ_PASSWORD": ""} | {
            variable: str(getattr(self, name))
            for name, (variable, _) in _VARIABLES.items()
            if name not in _URL_PARTS
        }

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The host and port of each node that may be connected to, in the order of the tries."""
        return ((self.host, self.port), *(_place(each, self.port) for each in self.more_hosts))

    @property
    def topology(self) -> Topology:
        """The topology that these settings describe."""
        expiry = self.queue_expiry if self.queues_expire else None
        return Topology(self.namespace, self.queue_type, expiry, self.events_exchange, self.declare)

    def _url(self, password: str) -> str:
        scheme = "amqps" if self.tls else "amqp"
        places = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places
        )
        vhost = quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}{password}@{places}/{vhost}"


def _number(kind: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise ValueError(f"it must be {noun}") from None

    return convert


def _yes_or_no(text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ValueError("it must be 1 (yes) or 0 (no)")
    return text.lower() in _YES


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):  # an IPv6 address as URLs have it
        return text[1:-1]
    if ";" in text:
        raise ValueError("write commas between several hosts")
    if re.fullmatch(r"[^:/,]*:[^:/,]*|\[[^,]*\]:\d+", text):
        raise ValueError("give the port in RABBITMQ_PORT")
    return text


def _place(text: str, port: int) -> tuple[str, int]:
    """Return the host and the port of *text*; *port* if it has none."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or re.search(r"[/@\s\x00-\x1f]", text):
            raise ValueError
        return parts.hostname, parts.port or port
    except ValueError:
        problem = "more_hosts has what is no host: write them like host2 or host3:5673"
        raise SettingsError(problem) from None


def _vhost(text: str) -> str:
    if "%2f" in text.lower():
        raise ValueError(f"write it as it is, not as in a URL: {unquote(text)}")
    return text


def _port(text: str) -> int:
    if text.startswith("tcp://"):  # from Kubernetes or Docker links, which name a service so
        try:
            port = urlsplit(text).port
        except ValueError:
            port = None
        if port is None:
            raise ValueError("it must be a whole number, or tcp://host:port")
        return port
    return _number(int)(text)


def _clean(text: str, *, is_password: bool = False) -> str:
    """Remove the space around a value, which files and shells leave there; from a password lines.

    Raises:
        ValueError: the value is in quotes, which Docker's environment files do not remove.
    """
    if is_password:
        return text.rstrip("\r\n")
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("it is in quotes: remove them")
    return text


def _read(environment: Mapping[str, str], variable: str) -> str:
    try:
        return _clean(environment.get(variable, ""))
    except ValueError as error:
        raise SettingsError(f"{variable}: {error}") from None


def _shown(text: str) -> str:
    """Return *text* for an error; not if it may be a URL, which may contain a password."""
    return "no valid value" if "@" in text or "//" in text else repr(text[:80])


def _password_from(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not valid UTF-8"
        raise SettingsError(f"{PASSWORD_FILE} is {path!r}, which cannot be read: {why}") from None
    if not (password := _clean(text, is_password=True)):
        raise SettingsError(
            f"{PASSWORD_FILE} is {path!r}, which is empty: write the password into it"
        )
    return password


def _warn_of_misspelt(environment: Mapping[str, str]) -> None:
    """Warn, once in a process, of a variable that looks like one of ours and is not read."""
    for name in environment:
        if name in _warned or not name.startswith(("MOUSETRAP_", "RABBITMQ_")):
            continue
        meant = _MISTAKES.get(name)
        if name.startswith("MOUSETRAP_") and name not in _KNOWN:
            meant = next(iter(difflib.get_close_matches(name, _KNOWN, 1, 0.85)), None)
        if meant is not None:
            _warn_once(name, f"{meant} is", 4)


def _warn_once(name: str, why: str, stacklevel: int = 3) -> None:
    if name not in _warned:
        _warned.add(name)
        warnings.warn(f"{name} is not read: {why}", stacklevel=stacklevel)


PASSWORD_FILE = "RABBITMQ_PASSWORD_FILE"  # noqa: S105 -- the name of a variable
TLS_PORT = 5671  # of AMQP over TLS, by convention
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "host": ("RABBITMQ_HOST", _host),
    "port": ("RABBITMQ_PORT", _port),
    "user": ("RABBITMQ_USER", str),
    "password": ("RABBITMQ_PASSWORD", str),
    "password_file": ("RABBITMQ_PASSWORD_FILE", str),
    "vhost": ("RABBITMQ_VHOST", _vhost),
    "tls": ("RABBITMQ_TLS", _yes_or_no),
    "tls_ca": ("RABBITMQ_TLS_CA", str),
    "tls_cert": ("RABBITMQ_TLS_CERT", str),
    "tls_key": ("RABBITMQ_TLS_KEY", str),
    "namespace": ("MOUSETRAP_NAMESPACE", str),
    "queue_type": ("MOUSETRAP_QUEUE_TYPE", str),
    "declare": ("MOUSETRAP_DECLARE", str),
    "queues_expire": ("MOUSETRAP_QUEUES_EXPIRE", _yes_or_no),
    "queue_expiry": ("MOUSETRAP_QUEUE_EXPIRY", _number(float)),
    "events_exchange": ("MOUSETRAP_EVENTS_EXCHANGE", str),
    "keep_bodies": ("MOUSETRAP_KEEP_BODIES", _number(int)),
    "heartbeat": ("MOUSETRAP_HEARTBEAT", _number(float)),
    "connect_timeout": ("MOUSETRAP_CONNECT_TIMEOUT", _number(float)),
    "confirm_timeout": ("MOUSETRAP_CONFIRM_TIMEOUT", _number(float)),
    "max_in_flight": ("MOUSETRAP_MAX_IN_FLIGHT", _number(int)),
}
_UNITS = {"keep_bodies": "bytes", "max_in_flight": "messages"} | dict.fromkeys(
    ("queue_expiry", "heartbeat", "connect_timeout", "confirm_timeout"), "s"
)
_UNSHOWN = ("more_hosts", "password_file", "tls_ca", "tls_cert", "tls_key")
_MAY_BE_EMPTY = ("password", "namespace", "events_exchange")
_URL_PARTS = ("host", "more_hosts", "port", "user", "password", "vhost", "tls")
# Other variables of mousetrap, read where they are used.
_OTHERS = ("BROKER", "CHECK", "COMPOSE_PROJECT", "CONFORMANCE", "DECLARED", "PROGRESS")
_KNOWN = {variable for variable, _ in _VARIABLES.values()} | {f"MOUSETRAP_{o}" for o in _OTHERS}
_MISTAKES = {  # what other programs call it
    "RABBITMQ_USERNAME": "RABBITMQ_USER", "RABBITMQ_PASS": "RABBITMQ_PASSWORD",
    "RABBITMQ_HOSTNAME": "RABBITMQ_HOST", "RABBITMQ_VIRTUAL_HOST": "RABBITMQ_VHOST",
    "RABBITMQ_URI": "RABBITMQ_URL", "RABBITMQ_SSL": "RABBITMQ_TLS",
    "RABBITMQ_CA_CERT": "RABBITMQ_TLS_CA", "RABBITMQ_CACERT": "RABBITMQ_TLS_CA",
    "RABBITMQ_TLS_CA_FILE": "RABBITMQ_TLS_CA", "RABBITMQ_TLS_CERT_FILE": "RABBITMQ_TLS_CERT",
    "RABBITMQ_TLS_KEY_FILE": "RABBITMQ_TLS_KEY",
    "RABBITMQ_URL_FILE": "RABBITMQ_URL", "RABBITMQ_USER_FILE": "RABBITMQ_USER",
}  # fmt: skip
_warned: set[str] = set()
