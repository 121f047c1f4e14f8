from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import files_of_at_most

from branchy.brokers import kafka_config as config
from branchy.errors import BranchyError, UsageError

FAIL_OVER_MS = {
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 500,
    "controller.quorum.fetch.timeout.ms": 1000,
    "controller.quorum.election.timeout.ms": 500,
    "controller.quorum.election.backoff.max.ms": 500,
    "controller.quorum.request.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": 6000,
    "group.consumer.heartbeat.interval.ms": 300,
}
"""What the windows of docs/reliability.md are made of; by Kafka's defaults they would be several times as long."""


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((config.HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def planned(data: Path, nodes: int | None = None, port: int | None = None) -> config.ClusterPlan:
    plan = config.plan_cluster(data, nodes, port)
    config.write_plan(data, plan)
    return plan


def settings(data: Path, node: int) -> dict[str, str]:
    lines = (data / f"node-{node}" / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_one_node_unless_told_and_then_as_many_as_before(tmp_path):
    assert len(planned(tmp_path / "one").nodes) == 1
    three = planned(tmp_path / "three", 3)
    assert [node.id for node in three.nodes] == [1, 2, 3]
    assert planned(tmp_path / "three") == three


def test_a_plan_writes_nothing(tmp_path):
    config.plan_cluster(tmp_path / "new", 3, None)
    assert not (tmp_path / "new").exists()


def test_all_ports_differ_and_a_named_one_is_the_first_nodes(tmp_path):
    port = config.free_ports(1)[0]
    plan = planned(tmp_path, 3, port)
    assert [node.port for node in plan.nodes] == [port, port + 1, port + 2]
    assert len({n.port for n in plan.nodes} | {n.controller_port for n in plan.nodes}) == 6
    assert plan.brokers == f"127.0.0.1:{port},127.0.0.1:{port + 1},127.0.0.1:{port + 2}"


def test_a_cluster_may_move_to_other_ports_and_stays_the_same_cluster(tmp_path):
    before = planned(tmp_path)
    moved = planned(tmp_path, port=config.free_ports(1, but=[before.nodes[0].port])[0])
    assert moved.cluster_id == before.cluster_id
    assert moved.nodes[0].port != before.nodes[0].port


def test_a_port_in_use_is_named(tmp_path, taken_port):
    with pytest.raises(BranchyError, match=f"port {taken_port} is in use; name another with --port"):
        config.plan_cluster(tmp_path, 1, taken_port)


def test_a_port_of_before_that_is_in_use_now_is_not_left_silently(tmp_path, taken_port):
    planned(tmp_path)
    content = json.loads((tmp_path / config.PLAN_FILE).read_text())
    content["nodes"][0]["port"] = taken_port
    (tmp_path / config.PLAN_FILE).write_text(json.dumps(content))
    with pytest.raises(BranchyError, match=f"port {taken_port} that this cluster had before is in use now"):
        config.plan_cluster(tmp_path, None, None)


def test_a_controllers_port_in_use_gives_way(tmp_path, taken_port):
    planned(tmp_path)
    content = json.loads((tmp_path / config.PLAN_FILE).read_text())
    content["nodes"][0]["controller_port"] = taken_port
    (tmp_path / config.PLAN_FILE).write_text(json.dumps(content))
    assert config.plan_cluster(tmp_path, None, None).nodes[0].controller_port != taken_port


def test_another_number_of_nodes_than_the_folders_is_wrong_use(tmp_path):
    planned(tmp_path, 3)
    with pytest.raises(UsageError, match="holds a cluster of 3 nodes, asked for were 1"):
        config.plan_cluster(tmp_path, 1, None)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="expected an empty folder"):
        config.plan_cluster(tmp_path, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "[]", '{"cluster_id": "x"}', '{"cluster_id": "x", "nodes": [{"id": 1}]}'])
def test_a_broken_plan_is_named(tmp_path, content):
    (tmp_path / config.PLAN_FILE).write_text(content)
    with pytest.raises(UsageError, match=r"cluster\.json: expected what 'branchy broker start' writes"):
        config.plan_cluster(tmp_path, None, None)


@pytest.mark.parametrize("end", [OSError, KeyboardInterrupt])
def test_a_first_start_that_is_cut_short_leaves_its_cluster_to_the_next(tmp_path, end):
    def cut_short(node: config.NodePlan, known: object) -> dict[str, str]:
        raise end

    plan = config.plan_cluster(tmp_path / "data", 3, None)
    with pytest.raises(end):
        config.write_plan(tmp_path / "data", plan, cut_short)
    assert config.plan_cluster(tmp_path / "data", None, None) == plan


def test_a_full_disk_leaves_the_plan_whole_or_the_folder_free(tmp_path):
    plan = config.plan_cluster(tmp_path / "data", 3, None)
    with files_of_at_most(20), pytest.raises(OSError, match="File too large"):
        config.write_plan(tmp_path / "data", plan)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".cluster.json.partial"]
    before = planned(tmp_path / "data", 1)
    moved = config.plan_cluster(tmp_path / "data", None, config.free_ports(1, but=[before.nodes[0].port])[0])
    with files_of_at_most(20), pytest.raises(OSError, match="File too large"):
        config.write_plan(tmp_path / "data", moved)
    assert config.read_plan(tmp_path / "data") == before


def test_a_plan_that_is_the_same_is_not_written_again(tmp_path):
    planned(tmp_path, 3)
    before = (tmp_path / config.PLAN_FILE).stat()
    planned(tmp_path)
    after = (tmp_path / config.PLAN_FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_three_nodes_keep_three_copies_and_two_must_have_a_message(tmp_path):
    planned(tmp_path, 3)
    for node in (1, 2, 3):
        own = settings(tmp_path, node)
        assert own["default.replication.factor"] == own["offsets.topic.replication.factor"] == "3"
        assert own["min.insync.replicas"] == own["transaction.state.log.min.isr"] == "2"
        assert own["node.id"] == str(node)
        assert own["auto.create.topics.enable"] == "false"
        assert {name: int(own[name]) for name in FAIL_OVER_MS} == FAIL_OVER_MS
        assert len(own["controller.quorum.voters"].split(",")) == 3


def test_one_node_keeps_one_copy(tmp_path):
    planned(tmp_path, 1)
    own = settings(tmp_path, 1)
    assert own["default.replication.factor"] == own["offsets.topic.replication.factor"] == "1"
    assert own["min.insync.replicas"] == own["share.coordinator.state.topic.min.isr"] == "1"


def test_a_node_gets_what_it_is_to_have_more_or_other(tmp_path):
    plan = config.plan_cluster(tmp_path, 3, None)
    config.write_plan(tmp_path, plan, lambda node, known: {"log.dirs": known["log.dirs"] + str(node.id), "own": "x"})
    changed = [(settings(tmp_path, node)["log.dirs"], settings(tmp_path, node)["own"]) for node in (1, 2, 3)]
    assert changed == [("data1", "x"), ("data2", "x"), ("data3", "x")]


def test_a_cluster_id_is_sixteen_bytes_and_never_looks_like_an_option(monkeypatch):
    import uuid

    drawn = [uuid.UUID(bytes=b"\xf8" + bytes(15)), uuid.UUID(bytes=b"\x01" + bytes(15))]  # base64: "-A...", "AQ..."
    monkeypatch.setattr(uuid, "uuid4", lambda: drawn.pop(0))
    assert config._new_cluster_id() == "AQ" + 20 * "A"
