"""Who owns the nodes of a data folder, with small processes in Java's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from branchy.brokers import kafka_config
from branchy.brokers.address_file import Reservation
from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_home import KafkaHome
from branchy.brokers.running import LOCK_FILE
from branchy.errors import BranchyError

NO_JAVA = """#!/bin/sh
case "$*" in *StorageTool*) exit 0 ;; esac
exec sleep 60
"""


@pytest.fixture
def home(tmp_path: Path) -> KafkaHome:
    """A Kafka that formats nothing, and whose nodes do nothing."""
    java = tmp_path / "no-java"
    java.write_text(NO_JAVA)
    java.chmod(0o700)
    return KafkaHome(tmp_path / "libs", str(java), "4")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder, in which nothing runs at the end."""
    yield tmp_path / "data"
    for process in processes(tmp_path / "data"):
        process.kill()


def processes(folder: Path) -> list[psutil.Process]:
    found = [each for each in psutil.process_iter(["cwd", "status"]) if each.info["status"] != psutil.STATUS_ZOMBIE]
    return [each for each in found if each.info["cwd"] and Path(each.info["cwd"]).is_relative_to(folder)]


@pytest.mark.parametrize("end", [BranchyError("no space"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_a_node_whose_address_cannot_be_written_does_not_stay(home, data, monkeypatch, end):
    def fails(*_: object) -> None:
        assert len(processes(data)) == 1
        raise end

    monkeypatch.setattr(Reservation, "publish", fails)
    with pytest.raises(type(end)):
        KafkaCluster(home, data).start()
    assert processes(data) == []


def test_of_two_starts_in_a_folder_the_second_says_so_and_stops_nothing_of_the_first(home, data, monkeypatch):
    first, second = KafkaCluster(home, data), KafkaCluster(home, data, nodes=3)

    def meanwhile(timeout_s: float) -> None:
        with pytest.raises(BranchyError, match="another 'branchy broker start' is at work in this folder"):
            second.start()

    monkeypatch.setattr(first, "wait_ready", meanwhile)
    first.start()
    with pytest.raises(BranchyError, match=r"a Kafka runs in this folder already \(node-1\)"):
        second.start()
    second.stop()
    assert len(processes(data)) == 1
    assert kafka_config.read_plan(data) == first.plan
    first.stop()
    assert processes(data) == []


def test_a_cluster_that_another_start_made_meanwhile_is_not_overwritten(home, data, monkeypatch):
    first, second = KafkaCluster(home, data), KafkaCluster(home, data)
    monkeypatch.setattr(first, "wait_ready", lambda timeout_s: None)
    first.start()
    first.stop()
    with pytest.raises(BranchyError, match="another start has made a cluster here meanwhile; start again"):
        second.start()
    assert kafka_config.read_plan(data) == first.plan


def test_a_folder_in_which_a_start_got_no_further_than_its_lock_is_free(home, data, monkeypatch):
    monkeypatch.setattr(KafkaCluster, "_write_settings", lambda self: (_ for _ in ()).throw(BranchyError("no")))
    with pytest.raises(BranchyError, match="no"):
        KafkaCluster(home, data).start()
    assert [path.name for path in data.iterdir()] == [LOCK_FILE]
    KafkaCluster(home, data)
