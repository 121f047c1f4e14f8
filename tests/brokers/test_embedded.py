"""The embedded broker as a process: starts, says where, ends when asked, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from branchy.brokers import embedded, running
from branchy.brokers.address_file import AddressFile
from branchy.brokers.embedded import start_detached, start_embedded
from branchy.errors import BranchyError

PATIENCE_S = 20


def has_ended(pid: int) -> bool:
    """Whether a process ends in time; one whose parent has not asked for its exit code counts as ended."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def address_file(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / ".branchy" / "broker.json"
    yield file
    running.stop_broker(file)


def test_it_takes_connections_as_soon_as_it_has_started_and_is_gone_after_stop():
    with start_embedded() as broker:
        metadata = AdminClient({"bootstrap.servers": broker.brokers, "log_level": 0}).list_topics(timeout=10)
        assert metadata.cluster_id.startswith("mockCluster")
    broker.stop()
    assert has_ended(broker.pid)


def test_its_address_file_is_there_while_it_runs(address_file: Path):
    with start_embedded(address_file) as broker:
        record = AddressFile(address_file).read()
        assert (record.brokers, record.pid, record.kind) == (broker.brokers, broker.pid, "embedded")
    assert not address_file.exists()


def test_a_second_one_at_the_same_place_is_refused_and_the_first_goes_on(address_file: Path):
    with start_embedded(address_file) as broker:
        for start in (start_embedded, start_detached):
            with pytest.raises(BranchyError, match=f"running already at {broker.brokers}"):
                start(address_file)
        assert AddressFile(address_file).is_live()


def test_a_left_over_address_file_is_replaced(address_file: Path):
    with start_embedded(address_file) as broker:
        os.kill(broker.pid, signal.SIGKILL)
    with pytest.raises(BranchyError, match=f"left over from a broker .process {broker.pid}"):
        running.running_broker(address_file)
    with start_embedded(address_file) as second:
        assert running.running_broker(address_file).pid == second.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_takes_its_address_file_away(address_file: Path, number: signal.Signals):
    with start_embedded(address_file) as broker:
        os.kill(broker.pid, number)
        assert has_ended(broker.pid)
        assert not address_file.exists()


def test_it_ends_when_the_process_that_started_it_is_killed(address_file: Path):
    code = (
        "import sys, time; from pathlib import Path; from branchy.brokers.embedded import start_embedded;"
        "broker = start_embedded(Path(sys.argv[1])); print(broker.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(address_file)], stdout=subprocess.PIPE)
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    assert has_ended(pid)
    assert not address_file.exists()


def test_a_detached_one_goes_on_until_it_is_stopped(address_file: Path):
    code = (
        "import sys; from pathlib import Path; from branchy.brokers.embedded import start_detached;"
        "print(start_detached(Path(sys.argv[1])).pid)"
    )
    # Reading both pipes to their ends shows that the broker holds neither open.
    ended = subprocess.run([sys.executable, "-c", code, str(address_file)], capture_output=True, timeout=PATIENCE_S)
    pid = int(ended.stdout)
    assert running.running_broker(address_file).pid == pid
    assert running.stop_broker(address_file).pid == pid
    assert has_ended(pid)


def test_one_that_does_not_come_up_is_an_error_and_leaves_no_process(monkeypatch, tmp_path: Path):
    slow = tmp_path / "slow.py"
    slow.write_text("import sys, time; sys.stderr.close(); time.sleep(600)")
    started = []
    popen = subprocess.Popen

    def spawn(command, **options):
        started.append(popen([sys.executable, str(slow)], **options))
        return started[-1]

    monkeypatch.setattr(embedded.subprocess, "Popen", spawn)
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.2)
    with pytest.raises(BranchyError, match=r"did not start in 0\.2 s"):
        start_embedded()
    assert started[0].poll() is not None
