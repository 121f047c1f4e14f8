"""A served tier's health port, asked as an orchestrator and a container's health check do."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from commands import Command
from serving_stand import Stand, one_sample

pytestmark = pytest.mark.alone


@pytest.fixture
def stand(tmp_path, embedded_broker, toy_bundle) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path, embedded_broker.brokers, toy_bundle, stack)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def asked(stand: Stand, *flags: object) -> tuple[int, str]:
    """Exit code and words of `branchy health`."""
    with Command(stand.folder, "health", *flags) as command:
        return command.process.wait(60), command.log()


def test_a_served_tier_tells_how_it_is_and_what_it_did(stand):
    port = free_port()
    edge = stand.serve("edge", "--health-port", port, "--health-host", "127.0.0.1")
    assert get(port, "/healthz") == (200, "alive\n")
    assert get(port, "/readyz") == (200, "ready\n")
    stand.client.ask(one_sample(sure=True), to="edge")
    assert stand.client.answer()[1].reason == "confident"
    status, text = get(port, "/metrics")
    assert status == 200
    assert f'branchy_requests_total{{cascade="{stand.cascade}",tier="edge"}} 1.0' in text
    assert f'branchy_answers_total{{cascade="{stand.cascade}",reason="confident",tier="edge"}} 1.0' in text
    assert f'model="{stand.bundle.digest}"' in text
    assert asked(stand, "--health-port", port, "--ready") == (0, "ready\n")
    assert edge.stop() == 0
    code, words = asked(stand, "--health-port", port)
    assert (code, len(words.splitlines())) == (1, 1)
    assert f"branchy: no answer from 127.0.0.1 port {port}" in words


def test_without_brokers_a_tier_is_alive_and_says_why_it_is_not_ready(stand):
    port = free_port()
    tier = stand.serve("hall,cloud", "--back", "127.0.0.1:1", "--health-port", port, ready=False)
    tier.wait_for_log("trying again")
    assert get(port, "/healthz") == (200, "alive: waits for the back's brokers\n")
    assert get(port, "/readyz") == (503, "not ready: waits for the back's brokers\n")
    assert asked(stand, "--health-port", port, "--ready") == (1, "branchy: not ready: waits for the back's brokers\n")


def test_a_health_port_in_use_is_one_line_before_anything_else_is_done(stand):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        flags = ("--health-port", port, "--health-host", "127.0.0.1", "--bundle", "nowhere")
        edge = stand.serve("edge", *flags, ready=False)
        assert edge.process.wait(60) == 1
    lines = edge.log().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"branchy: health port: expected to listen on 127.0.0.1 port {port}, got: Address")
