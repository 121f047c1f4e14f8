"""Processes come and go with the one that started them, whatever ends it."""

import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from branchy.errors import BranchyError
from branchy.runner.processes import Interrupts, Processes

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time, pathlib, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(600)",
]


@pytest.fixture
def processes(tmp_path):
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        yield processes


def test_the_end_of_the_block_stops_and_reaps_every_child(tmp_path):
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        children = [processes.start(name, SLEEPER) for name in ("a", "b")]
        assert all(child.is_alive for child in children)
    assert [child.popen.returncode for child in children] == [-signal.SIGTERM] * 2


def test_an_error_in_the_block_stops_every_child_too(tmp_path):
    children = []

    def fail():
        with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
            children.append(processes.start("a", SLEEPER))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert children[0].popen.returncode is not None


def test_a_child_that_ignores_the_signal_is_killed(processes, tmp_path, monkeypatch):
    monkeypatch.setattr("branchy.runner.processes.GRACE_S", 0.1)
    child = processes.start("stubborn", [*STUBBORN, str(tmp_path / "deaf")])
    processes.wait_for_file(child, tmp_path / "deaf", timeout_s=30)
    processes.stop(child)
    assert child.popen.returncode == -signal.SIGKILL


def test_a_child_is_told_with_the_signal_it_asks_for(processes, tmp_path):
    child = processes.start("a", ["/bin/sleep", "600"], stop_signal=signal.SIGINT)
    processes.stop(child)
    assert child.popen.returncode in (-signal.SIGINT, 130)


def test_kill_is_sigkill(processes):
    child = processes.start("a", SLEEPER)
    processes.kill(child)
    assert not child.is_alive
    assert child.popen.returncode == -signal.SIGKILL


def test_waiting_for_a_file_returns_once_it_is_there(processes, tmp_path):
    child = processes.start("a", ["/bin/sh", "-c", f"touch {tmp_path}/ready; exec sleep 600"])
    processes.wait_for_file(child, tmp_path / "ready", timeout_s=30)
    assert child.is_alive


def test_a_child_that_ends_while_waited_for_is_an_error_with_its_last_words(processes, tmp_path):
    child = processes.start("edge", ["/bin/sh", "-c", "echo no such bundle >&2; exit 3"])
    with pytest.raises(BranchyError, match="edge ended with 3: no such bundle"):
        processes.wait_for_file(child, tmp_path / "ready", timeout_s=30)


def test_a_child_that_is_never_ready_is_an_error(processes, tmp_path):
    child = processes.start("edge", SLEEPER)
    with pytest.raises(BranchyError, match="edge was not ready within 0 s"):
        processes.wait_for_file(child, tmp_path / "ready", timeout_s=0)


def test_a_signal_in_a_held_block_waits_for_its_end():
    reached = []

    def hold():
        with Interrupts() as interrupts, interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        hold()
    assert reached == ["the end"]


def test_only_the_first_signal_interrupts():
    tidied = []

    def interrupt_often():
        with Interrupts():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGHUP)
                tidied.append("everything")

    with pytest.raises(KeyboardInterrupt):
        interrupt_often()
    assert tidied == ["everything"]


def test_the_signals_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


PARENT = textwrap.dedent(
    """
    import pathlib, sys, time
    from branchy.runner.processes import Interrupts, Processes
    folder = pathlib.Path(sys.argv[1])
    with Interrupts() as interrupts, Processes(interrupts, folder) as processes:
        child = processes.start("child", ["/bin/sh", "-c", f"touch {folder}/ready; exec sleep 600"])
        processes.wait_for_file(child, folder / "ready", timeout_s=30)
        print(child.popen.pid, flush=True)
        time.sleep(600)
    """
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with a parent that was killed")
def test_no_child_outlives_its_parent_whatever_signal_ends_that(tmp_path, number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(number)
    parent.communicate(timeout=30)
    assert parent.returncode != 0
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()
