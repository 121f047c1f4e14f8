"""Listeners that are asked what they take, on sockets of the test's own."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from branchy.brokers.certificates import certificate_file, make_certificates
from branchy.transport.kafka import listener
from branchy.transport.kafka.listener import ILLEGAL_SASL_STATE, mismatch

UNSUPPORTED_MECHANISM = 33
Answer = Callable[[socket.socket], None]


def kafka(error: int) -> Answer:
    """Answers a SaslHandshake with an error code, and closes the connection of who sends anything else."""

    def answer(connection: socket.socket) -> None:
        head = connection.recv(14)
        if len(head) == 14 and head[4:8] == struct.pack(">hh", listener.SASL_HANDSHAKE, 1):
            connection.sendall(struct.pack(">iihi", 10, struct.unpack(">i", head[8:12])[0], error, 0))

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts a listener, with TLS or without; gives its address."""
    servers: list[socket.socket] = []

    def start(answer: Answer, context: ssl.SSLContext | None = None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def work() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = server.accept()
                    with accepted, suppress(OSError):
                        connection = context.wrap_socket(accepted, server_side=True) if context else accepted
                        with connection:
                            answer(connection)

        threading.Thread(target=work, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture(scope="module")
def tls(openssl: None, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, ["broker"], "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(folder, "broker"))
    return context


@pytest.mark.parametrize("tried", ["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"])
@pytest.mark.parametrize("takes", ["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"])
def test_a_wrong_protocol_is_told_and_the_right_one_is_not(serve, tls, takes, tried):
    error = UNSUPPORTED_MECHANISM if takes.startswith("SASL") else ILLEGAL_SASL_STATE
    address = serve(kafka(error), tls if takes.endswith("SSL") else None)
    found = mismatch(address, tried)
    if takes == tried:
        assert found is None
    else:
        assert found.startswith(f"{address} takes ")
        assert takes in found.partition(" only")[0].split()
        assert found.endswith(f"the setting security is {tried}")


def test_a_proxy_whose_broker_is_away_says_nothing(serve):
    """It takes the connection and closes it, as a listener does that wants another protocol."""
    assert mismatch(serve(lambda connection: None), "PLAINTEXT") is None


def test_one_that_is_silent_costs_one_wait_and_what_is_no_kafka_says_nothing(serve, monkeypatch):
    monkeypatch.setattr(listener, "TIMEOUT_S", 0.05)
    silent = serve(lambda connection: connection.recv(1 << 16) and threading.Event().wait(1.0))
    other = serve(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert mismatch(f"{silent},{other}", "PLAINTEXT") is None
    assert mismatch(other, "PLAINTEXT") is None


def test_the_next_is_asked_where_the_first_is_not_there(serve):
    address = serve(kafka(UNSUPPORTED_MECHANISM))
    assert mismatch(f"127.0.0.1:1,{address}", "PLAINTEXT").startswith(f"{address} takes SASL_PLAINTEXT only")
