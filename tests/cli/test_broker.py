"""`branchy broker` with the embedded broker, as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from branchy.brokers.running import stop_broker

Branchy = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = (sys.executable, "-m", "branchy", "broker")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Branchy]:
    """Calls `branchy broker ...` in a folder of its own."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    yield call
    stop_broker(tmp_path / ".branchy" / "broker.json")


def test_it_starts_shows_refuses_a_second_and_stops(broker: Branchy, tmp_path: Path):
    started = broker("start", "--embedded")
    assert (started.returncode, started.stderr) == (0, "")
    assert "'branchy broker stop' ends it" in started.stdout
    address = started.stdout.split()[2]

    shown = broker("status")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"embedded broker at {address} ")

    again = broker("start", "--embedded")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"branchy: a broker is running already at {address} ")

    stopped = broker("stop")
    assert (stopped.returncode, stopped.stdout) == (0, f"broker at {address} stopped\n")
    assert not (tmp_path / ".branchy" / "broker.json").exists()


def test_where_none_runs_status_and_stop_say_so(broker: Branchy):
    for command in ("status", "stop"):
        result = broker(command)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("branchy: no broker runs here; ")
        assert result.stderr.count("\n") == 1


def test_a_left_over_address_file_is_named_by_status(broker: Branchy, tmp_path: Path):
    file = tmp_path / ".branchy" / "broker.json"
    file.parent.mkdir()
    file.write_text('{"brokers": "127.0.0.1:9", "pid": 1, "kind": "embedded", "started": "then"}')
    result = broker("status")
    assert result.returncode == 1
    assert "left over from a broker (process 1, 127.0.0.1:9) that is gone" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_stays_until_it_is_asked_to_end(broker: Branchy, tmp_path: Path, number: signal.Signals):
    process = subprocess.Popen(
        [*COMMAND, "start", "--embedded", "--foreground"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line.endswith("Ctrl-C ends it\n")
    assert broker("status").returncode == 0
    os.kill(process.pid, number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    assert broker("status").returncode == 1
