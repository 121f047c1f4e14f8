"""Stopping by locked files, with small processes in the brokers' place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from branchy.brokers import running
from branchy.brokers.address_file import AddressFile, BrokerRecord
from branchy.errors import BranchyError

GENTLE = "import sys; print(flush=True); sys.stdin.read()"
DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that holds the file of a path, and others' that are given."""
    started: list[subprocess.Popen[bytes]] = []

    def call(path: Path, code: str = GENTLE, also: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        with AddressFile(path).reserved() as reservation:
            command = [sys.executable, "-c", code]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command, **pipes, pass_fds=(reservation.descriptor, *also))
            started.append(process)
            process.stdout.readline()
            reservation.publish(BrokerRecord.now("127.0.0.1:1", process.pid, "node"))
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def cluster(tmp_path: Path, start: Start, count: int = 3) -> tuple[Path, list[subprocess.Popen[bytes]]]:
    """An address file that all of the nodes hold."""
    address_file, data = tmp_path / "broker.json", tmp_path / "data"
    with AddressFile(address_file).reserved() as reservation:
        nodes = [start(data / f"node-{n}" / "node.json", also=(reservation.descriptor,)) for n in range(1, count + 1)]
        reservation.publish(BrokerRecord.now("127.0.0.1:1,127.0.0.1:2", nodes[0].pid, "kafka", str(data)))
    return address_file, nodes


def test_a_file_lives_as_long_as_the_process_that_was_given_it(tmp_path, start):
    file = AddressFile(tmp_path / "broker.json")
    process = start(file.path)
    assert file.is_live()
    process.kill()
    process.wait()
    assert not file.is_live()


def test_a_reservation_that_is_not_published_leaves_nothing(tmp_path):
    with AddressFile(tmp_path / "broker.json").reserved():
        pass
    assert list(tmp_path.iterdir()) == []


def test_stopping_ends_all_nodes_and_removes_their_files(tmp_path, start, caplog):
    address_file, nodes = cluster(tmp_path, start)
    assert running.stop_broker(address_file).brokers == "127.0.0.1:1,127.0.0.1:2"
    assert [node.wait(10) for node in nodes] == [-signal.SIGTERM] * 3
    assert not address_file.exists()
    assert running.node_files(tmp_path / "data") == []
    assert not caplog.messages


def test_a_cluster_lives_until_its_last_node_ended_and_the_dead_are_named(tmp_path, start):
    address_file, nodes = cluster(tmp_path, start)
    for node in nodes[:2]:
        node.kill()
        node.wait()
    record = running.running_broker(address_file)
    assert [folder.name for folder in running.dead_nodes(record)] == ["node-1", "node-2"]
    nodes[2].kill()
    nodes[2].wait()
    with pytest.raises(BranchyError, match="left over from a broker"):
        running.running_broker(address_file)
    assert running.stop_broker(address_file) is None
    assert not address_file.exists()


def test_the_process_id_of_a_dead_node_is_never_signalled(tmp_path, start):
    """The system gives ids again: here a stranger has the dead node's."""
    address_file, nodes = cluster(tmp_path, start)
    nodes[0].kill()
    nodes[0].wait()
    stranger = start(tmp_path / "stranger.json")
    file = tmp_path / "data" / "node-1" / "node.json"
    file.write_text(file.read_text().replace(str(nodes[0].pid), str(stranger.pid)))
    running.stop_broker(address_file)
    assert [node.wait(10) for node in nodes[1:]] == [-signal.SIGTERM] * 2
    assert stranger.poll() is None


def test_a_process_that_does_not_end_when_asked_is_killed_and_that_is_said(tmp_path, start, monkeypatch, caplog):
    monkeypatch.setattr(running, "STOP_TIMEOUT_S", 0.1)
    file = AddressFile(tmp_path / "broker.json")
    process = start(file.path, DEAF)
    running.stop_processes([file])
    assert process.wait(10) == -signal.SIGKILL
    assert not file.path.exists()
    (said,) = caplog.messages
    assert said == f"the broker has not ended in 0.1 s, and is killed: the process of {file.path}"


def test_a_process_that_cannot_be_ended_is_told(tmp_path, start, monkeypatch):
    monkeypatch.setattr(running, "STOP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(running, "KILL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    file = AddressFile(tmp_path / "broker.json")
    start(file.path)
    with pytest.raises(BranchyError, match="does not end"):
        running.stop_processes([file])
    assert file.path.exists()


def test_where_nothing_runs_there_is_nothing_to_stop(tmp_path):
    assert running.running_broker(tmp_path / "broker.json") is None
    assert running.stop_broker(tmp_path / "broker.json") is None
