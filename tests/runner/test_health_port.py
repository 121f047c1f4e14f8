from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from branchy.config import HealthSettings
from branchy.errors import BranchyError, UsageError
from branchy.runner import health_port
from branchy.runner.health import Health, Verdict
from branchy.runner.health_port import MOST_CONNECTIONS, HealthPort, ask

LOOPBACK = HealthSettings(host="127.0.0.1")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def port(health: Health) -> Iterator[HealthPort]:
    with closing(HealthPort(LOOPBACK, health)) as port:
        yield port


def get(port: HealthPort, path: str, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=20)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type") or "", response.read().decode()


def test_each_path_has_its_answer_and_one_line(port, health):
    assert get(port, "/healthz")[::2] == (200, "alive: waits for its bundle\n")
    assert get(port, "/readyz?verbose")[::2] == (503, "not ready: waits for its bundle\n")
    assert get(port, "/nonsense")[::2] == (404, "expected one of /healthz, /readyz, /metrics\n")


def test_metrics_are_prometheus_text_or_openmetrics_as_asked_for(port):
    status, kind, text = get(port, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert 'branchy_ready{cascade="",tier=""} 0.0' in text
    status, kind, text = get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_a_port_in_use_is_one_line_that_says_what_to_do(port, health):
    with pytest.raises(BranchyError) as caught:
        HealthPort(HealthSettings(host="127.0.0.1", port=port.port), health)
    text = str(caught.value)
    assert f"127.0.0.1 port {port.port}, got: Address already in use" in text
    assert "--health-port" in text
    assert "\n" not in text
    assert caught.value.exit_code == 1


def test_an_address_that_is_none_is_named(health):
    with pytest.raises(BranchyError, match=r"listen on 192\.0\.2\.1 port 0"):
        HealthPort(HealthSettings(host="192.0.2.1"), health)


def closed(client: socket.socket) -> bool:
    """Whether the port has closed a connection that still sends a little now and then."""
    client.settimeout(0.05)
    try:
        client.sendall(b"x")
        return client.recv(1000) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_clients_that_never_come_to_an_end_hold_nobody_else_and_are_closed(port, monkeypatch):
    with closing(socket.create_connection(("127.0.0.1", port.port), timeout=20)) as slow:
        slow.sendall(b"GET /healthz")
        assert get(port, "/healthz")[0] == 200
        assert not closed(slow)
        monkeypatch.setattr(health_port, "CONNECTION_S", 0.0)
        assert any(closed(slow) for _ in range(400))


def test_no_more_than_so_many_connections_are_kept(port):
    held = [socket.create_connection(("127.0.0.1", port.port), timeout=20) for _ in range(MOST_CONNECTIONS)]
    try:
        with closing(socket.create_connection(("127.0.0.1", port.port), timeout=20)) as one_more:
            assert one_more.recv(1000) == b""
        assert not closed(held[0])
    finally:
        for each in held:
            each.close()


def test_branchy_health_asks_where_the_tier_listens(port, health):
    settings = HealthSettings(port=port.port)
    assert settings.host == "0.0.0.0", "asked at 127.0.0.1"
    assert ask(settings) == Verdict(True, "alive: waits for its bundle")
    assert ask(settings, "ready") == Verdict(False, "not ready: waits for its bundle")
    port.close()
    verdict = ask(settings)
    assert not verdict.ok
    assert f"no answer from 127.0.0.1 port {port.port}" in verdict.line


def test_branchy_health_without_a_port_is_wrong_use():
    with pytest.raises(UsageError, match="BRANCHY_HEALTH_PORT"):
        ask(HealthSettings())


def test_all_of_ipv6_takes_ipv4_too(health):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with closing(HealthPort(HealthSettings(host="::"), health)) as both:
        assert get(both, "/healthz")[0] == 200
