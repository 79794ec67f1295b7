"""TLS with a broker: whom it trusts, and the certificate that this client shows.

The files are read at each connection attempt, so a certificate that is renewed needs no restart.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from mousetrap.errors import SettingsError

if TYPE_CHECKING:
    from mousetrap.settings import Settings

CA, CERT, KEY = "RABBITMQ_TLS_CA", "RABBITMQ_TLS_CERT", "RABBITMQ_TLS_KEY"
_NEEDED = {
    "CERTIFICATE_REQUIRED", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_HANDSHAKE_FAILURE",
}  # fmt: skip
_REFUSED = {
    "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
}  # fmt: skip


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return a context that verifies the broker's certificate and host name.

    Raises:
        SettingsError: a file cannot be read, or is not what it should be; names the variable.
    """
    context = _trusting(settings.tls_ca)
    if settings.tls_cert:
        _read(settings.tls_cert, CERT)
        if settings.tls_key:
            _read(settings.tls_key, KEY)
        try:
            # without a password for the key OpenSSL would ask for one on the terminal
            context.load_cert_chain(settings.tls_cert, settings.tls_key or None, password="")
        except (ssl.SSLError, ValueError, OSError) as error:
            raise SettingsError(_why_not_loaded(settings, error)) from None
    return context


def explained(error: ssl.SSLError, settings: Settings) -> str:
    """Return what *error* of a connection means, and what to do."""
    where = settings.url
    if error.reason == "WRONG_VERSION_NUMBER":  # the answer was not TLS
        return (
            f"{where} does not speak TLS on this port: use amqp:// for it, or the broker's TLS "
            f"port (usually 5671)"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {where} is not trusted ({error.verify_message}): set {CA} to the "
            f"file of the authority that signed it, or use the host name in the certificate"
        )
    return alert_explained(error.reason or "no reason given", settings)


def alert_explained(reason: str, settings: Settings) -> str:
    """Return what OpenSSL's *reason* for the end of a connection means, and what to do."""
    where, plain = settings.url, reason.lower().replace("_", " ")
    if reason in _NEEDED and not settings.tls_cert:
        return (
            f"{where} wants a certificate of this client: set {CERT} to the file of one that it "
            f"trusts, and {KEY} to that of its key"
        )
    if reason in _REFUSED | _NEEDED and settings.tls_cert:
        return (
            f"{where} does not accept the certificate in {settings.tls_cert!r} "
            f"({plain}): set {CERT} to one that is valid and signed by an authority that "
            f"the broker trusts"
        )
    return f"TLS with {where} failed ({plain}): check the broker's TLS settings"


def _trusting(authority: str) -> ssl.SSLContext:
    if not authority:
        return ssl.create_default_context()
    _read(authority, CA)
    try:
        return ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, ValueError, OSError):
        raise SettingsError(
            f"{CA} is {authority!r}, which has no certificate in PEM format "
            f"(-----BEGIN CERTIFICATE-----): name the file of the authority that signed the "
            f"broker's certificate"
        ) from None


def _read(path: str, variable: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{variable} is {path!r}, which cannot be read: {error.strerror}"
        ) from None


def _why_not_loaded(settings: Settings, error: Exception) -> str:
    reason = getattr(error, "reason", "") or ""
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key in {KEY} does not belong to the certificate in {CERT}"
    if b"ENCRYPTED" in Path(settings.tls_key or settings.tls_cert).read_bytes():
        return f"the key of {CERT} is encrypted: write it without a password, readable by its user"
    if not settings.tls_key:
        return (
            f"{CERT} is {settings.tls_cert!r}, which has not both a certificate and a key in PEM "
            f"format: set {KEY} to the file of the key"
        )
    return (
        f"{CERT} is {settings.tls_cert!r} and {KEY} is {settings.tls_key!r}: one of them has no "
        f"certificate or key in PEM format"
    )
