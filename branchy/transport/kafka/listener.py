"""What a broker's listener asks for that a client does not do: TLS, or a login.

A listener closes the connection of a client that speaks another security protocol without a word, and so does a
proxy whose broker is away. So that a tier need not try for ever where only a person can help, the listener is asked.
No secret is sent, and nothing that comes back is trusted.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

TIMEOUT_S = 1.0
SASL_HANDSHAKE = 17
"""Kafka's API key (KIP-43)."""

ILLEGAL_SASL_STATE = 34
"""What a listener without SASL answers."""


def mismatch(brokers: str, security: str) -> str | None:
    """How the listeners differ from a security protocol, in words; None where none says.

    Args:
        brokers: `HOST:PORT[,...]`.
        security: Kafka's security protocol that was tried.
    """
    for address in brokers.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            found = _ask(host.strip("[]"), int(port), security)
        except TimeoutError:
            return None  # nor will the others in any time that somebody waits
        except (OSError, struct.error):  # it is not there, or does not speak so
            continue
        if found is not None and found != security:
            return f"{address.strip()} takes {found} only, and the setting security is {security}"
    return None


def _ask(host: str, port: int, security: str) -> str | None:
    """The listener's own security protocol; None when it does not say."""
    with_tls = _takes_tls(host, port)
    with socket.create_connection((host, port), TIMEOUT_S) as plain:
        if not with_tls:
            return _protocol(plain, "PLAINTEXT")
        if security in ("PLAINTEXT", "SASL_PLAINTEXT"):
            return "SASL_SSL or SSL"
        with _context().wrap_socket(plain) as secured:
            return _protocol(secured, "SSL")


def _takes_tls(host: str, port: int) -> bool:
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        _context().wrap_socket(plain),
    ):
        return True
    return False


def _context() -> ssl.SSLContext:
    """Without a look at the certificate: it is asked what it speaks, and told nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _protocol(connection: socket.socket, base: str) -> str | None:
    """Ask to begin a login: a listener without SASL says so."""
    mechanism = b"branchy"
    request = struct.pack(">hhihh", SASL_HANDSHAKE, 1, 7, -1, len(mechanism)) + mechanism
    connection.sendall(struct.pack(">i", len(request)) + request)
    with connection.makefile("rb") as answer:
        size, correlation, error = struct.unpack(">iih", answer.read(10))
    if size < 6 or correlation != 7:
        return None
    return base if error == ILLEGAL_SASL_STATE else f"SASL_{base}"
