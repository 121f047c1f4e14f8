"""The embedded broker: librdkafka's mock cluster in a process of its own.

`start_embedded` is what the demo and the tests use: the broker ends with the process that
started it, however that ends, because it watches a pipe from it. `branchy broker start
--embedded` detaches it instead (`start_detached`), and `running.stop_broker` ends that one.
For trying out: it keeps a few MB a partition, nothing on disk, and drops the oldest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from branchy.brokers.address_file import AddressFile, BrokerRecord
from branchy.brokers.mock_cluster import open_mock_cluster
from branchy.errors import BranchyError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """A broker process started by this one; stops with it, or before.

    Attributes:
        brokers: its `HOST:PORT`.
        pid: its process.
    """

    def __init__(self, process: subprocess.Popen[bytes], brokers: str) -> None:
        self._process = process
        self.brokers = brokers
        self.pid = process.pid

    def stop(self) -> None:
        """End it and wait for that; may be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_embedded(address_file: Path | None = None) -> EmbeddedBroker:
    """Start a broker that ends with this process, and wait until it takes connections.

    Args:
        address_file: where to write its address for others; None tells nobody.

    Raises:
        BranchyError: one runs there already, or it did not start.
    """
    return EmbeddedBroker(*_spawn(address_file, tethered=True))


def start_detached(address_file: Path) -> BrokerRecord:
    """Start a broker that goes on when this process ends; `running.stop_broker` ends it.

    Raises:
        BranchyError: one runs there already, or it did not start.
    """
    _spawn(address_file, tethered=False)
    record = AddressFile(address_file).read()
    if record is None:
        raise BranchyError("the embedded broker ended as soon as it had started")
    return record


def run_embedded(
    address_file: Path | None, on_ready: Callable[[BrokerRecord], None], *, watch_stdin: bool = False
) -> None:
    """Be the broker: host it in this process until SIGTERM, SIGINT, or (`watch_stdin`) the end of standard input.

    Args:
        address_file: where to write its address, None for nowhere.
        on_ready: called once it takes connections.
        watch_stdin: end when the process at the other end of standard input does.

    Raises:
        BranchyError: one runs there already, or the cluster does not start.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    cluster = open_mock_cluster()
    record = BrokerRecord.now(cluster.brokers, os.getpid(), "embedded")
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.close)
        if address_file is not None:
            stack.enter_context(AddressFile(address_file).claimed(record))
        on_ready(record)
        if watch_stdin:
            threading.Thread(target=_watch_stdin, args=(ended,), daemon=True).start()
        ended.wait()


def _watch_stdin(ended: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter shuts down
        pass
    ended.set()


def _spawn(address_file: Path | None, *, tethered: bool) -> tuple[subprocess.Popen[bytes], str]:
    """Start a broker process in a session of its own (a Ctrl-C here is not for it) and wait for its address."""
    command = [sys.executable, "-m", "branchy.brokers.embedded"]
    command += ["--address-file", str(address_file)] if address_file is not None else []
    command += ["--watch-stdin"] if tethered else []
    stdin = subprocess.PIPE if tethered else subprocess.DEVNULL
    stderr = None if tethered else subprocess.DEVNULL  # detached, it must keep no terminal and no pipe open
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
    assert process.stdout is not None
    with process.stdout as stdout:
        ready, _, _ = select.select([stdout], [], [], START_TIMEOUT_S)
        line = stdout.readline() if ready else b""
    report = json.loads(line) if line else {"error": f"the embedded broker did not start in {START_TIMEOUT_S:g} s"}
    if "error" in report:
        process.kill()
        process.wait()
        raise BranchyError(report["error"])
    return process, report["brokers"]


def _main() -> int:
    """What the broker's process runs; reports to its starter on standard output, as one line of JSON."""
    parser = argparse.ArgumentParser(prog="branchy.brokers.embedded")
    parser.add_argument("--address-file", type=Path)
    parser.add_argument("--watch-stdin", action="store_true")
    arguments = parser.parse_args()
    try:
        run_embedded(
            arguments.address_file,
            lambda record: _report({"brokers": record.brokers}),
            watch_stdin=arguments.watch_stdin,
        )
    except BranchyError as error:
        _report({"error": str(error)})
        return error.exit_code
    return 0


def _report(what: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(_main())
