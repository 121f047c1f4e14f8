"""The broker that runs on this machine, of either kind: look at it, stop it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from branchy.brokers.address_file import AddressFile, BrokerRecord
from branchy.errors import BranchyError

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 20.0
"""How long a broker may take to end by itself; a Kafka node hands its partitions on and syncs its logs."""

KILL_TIMEOUT_S = 10.0

USERS_FOLDER = "users"
"""A secured cluster's certificates, passwords and settings files, in its data folder."""

LOCK_FILE = ".lock"
"""Held while the cluster of a data folder is started, in that folder."""

NODE_FILE = "node.json"
"""The address file of one node, in the node's folder."""


def running_broker(address_file: Path) -> BrokerRecord | None:
    """The broker that an address file names, None when there is no file.

    Raises:
        BranchyError: the file is left over from a broker that is gone, or no address file.
    """
    file = AddressFile(address_file)
    record = file.read()
    if record is not None and not file.is_live():
        raise BranchyError(
            f"{address_file} is left over from a broker (process {record.pid}, {record.brokers}) that is gone; "
            "'branchy broker start' replaces it, 'branchy broker stop' removes it"
        )
    return record


def node_files(data: Path) -> list[AddressFile]:
    """The address files of a cluster's nodes that were started and not stopped, by the nodes' order."""
    return [AddressFile(path) for path in sorted(data.glob(f"node-*/{NODE_FILE}"))]


def check_nothing_runs(data: Path) -> None:
    """See to it that no node of this folder's cluster runs.

    Raises:
        BranchyError: one does.
    """
    live = [file.path.parent.name for file in node_files(data) if file.is_live()]
    if live:
        raise BranchyError(
            f"{data}: a Kafka runs in this folder already ({', '.join(live)}); stop it where it was started with "
            "'branchy broker stop', or name another folder with --data"
        )


def dead_nodes(record: BrokerRecord) -> list[Path]:
    """The folders of a running cluster's nodes that ended without being stopped; their logs are in there."""
    if record.data is None:
        return []
    return [file.path.parent for file in node_files(Path(record.data)) if not file.is_live()]


def settings_files(record: BrokerRecord) -> list[Path]:
    """A secured cluster's users' settings files, by name; of others none."""
    if record.data is None or record.security == "PLAINTEXT":
        return []
    return sorted((Path(record.data) / USERS_FOLDER).glob("*.toml"))


def stop_broker(address_file: Path) -> BrokerRecord | None:
    """Stop the broker that an address file names and wait until it has ended; a left-over file is removed.

    Returns:
        The broker that was stopped; None when none was running.

    Raises:
        BranchyError: it does not end, or the file is no address file.
    """
    file = AddressFile(address_file)
    record = file.read()
    if record is None or not file.is_live():
        address_file.unlink(missing_ok=True)
        return None
    stop_processes([file] if record.data is None else node_files(Path(record.data)))
    if file.is_live():
        raise BranchyError(f"a process still holds {address_file}, which no node's file names; end it by hand")
    address_file.unlink(missing_ok=True)
    return record


def stop_processes(files: Sequence[AddressFile]) -> None:
    """Ask the processes that hold these files to end, all at once; kill those that do not in time.

    Raises:
        BranchyError: one does not even end when killed.
    """
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        _signal(files, number)
        deadline_s = time.monotonic() + patience_s
        while any(file.is_live() for file in files):
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.02)
        else:
            for file in files:
                file.path.unlink(missing_ok=True)
            return
        left = ", ".join(str(file.path) for file in files if file.is_live())
        if number == signal.SIGTERM:
            logger.warning("the broker has not ended in %g s, and is killed: the process of %s", patience_s, left)
    raise BranchyError(f"the broker does not end; end the process of {left} by hand")


def _signal(files: Sequence[AddressFile], number: signal.Signals) -> None:
    """Only where the file is held: its process id is then that of the holder, and of nobody else."""
    for file in files:
        record = file.read() if file.is_live() else None
        if record is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, number)
