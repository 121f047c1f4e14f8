from __future__ import annotations

from typing import Any

import deployment
import pytest
import yaml
from deployment import DOCKERFILES, ROOT, pairs, stages

from branchy.brokers.kafka_home import KAFKA_VERSION
from branchy.config import ServeSettings, load

COMPOSE = yaml.safe_load((DOCKERFILES / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BRANCHY = {name: service for name, service in SERVICES.items() if service["image"].startswith("branchy-")}
TIERS = ("edge", "fog", "cloud")
KAFKA = ("kafka-1", "kafka-2", "kafka-3")


def test_each_image_is_built_once_from_its_own_dockerfile():
    built = {s["image"]: s["build"]["dockerfile"] for s in BRANCHY.values() if "build" in s}
    assert set(built) == {service["image"] for service in BRANCHY.values()}
    for image, dockerfile in built.items():
        assert dockerfile == f"dockerfiles/{image.removeprefix('branchy-')}.Dockerfile"
        assert (ROOT / dockerfile).is_file()


def test_three_kafka_nodes_of_the_version_that_is_tried_lead_and_copy_everything():
    assert {name for name, service in SERVICES.items() if "kafka" in service["image"]} == set(KAFKA)
    for number, name in enumerate(KAFKA, 1):
        service = SERVICES[name]
        said = service["environment"]
        assert service["image"] == f"apache/kafka:{KAFKA_VERSION}"
        assert said["KAFKA_NODE_ID"] == str(number)
        assert said["KAFKA_ADVERTISED_LISTENERS"] == f"CLIENTS://{name}:9092"
        assert f"{number}@{name}:9093" in said["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
        assert (said["KAFKA_MIN_INSYNC_REPLICAS"], said["KAFKA_AUTO_CREATE_TOPICS_ENABLE"]) == ("2", "false")
        (volume,) = service["volumes"]
        assert volume.split(":") == [name, said["KAFKA_LOG_DIRS"]]
        assert name in COMPOSE["volumes"]
    assert len({SERVICES[name]["environment"]["CLUSTER_ID"] for name in KAFKA}) == 1


@pytest.mark.parametrize("name", BRANCHY)
def test_each_command_line_and_variable_is_one_of_branchys(name):
    service = BRANCHY[name]
    image = stages(DOCKERFILES / f"{service['image'].removeprefix('branchy-')}.Dockerfile")[-1]
    entry = {i.keyword: i.words for i in image if i.keyword == "ENTRYPOINT"}["ENTRYPOINT"]
    line = [*service.get("entrypoint", entry), *service.get("command", [])]
    assert line[0] == "branchy"
    assert deployment.complaint(line[1:]) is None
    assert {n for n in service["environment"] if n.startswith("BRANCHY_")} <= deployment.known_variables()
    assert service["environment"]["BRANCHY_BACK_BROKERS"] == ",".join(f"{node}:9092" for node in KAFKA)
    depends = service["depends_on"]
    assert set(depends) <= set(SERVICES)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_the_tiers_run_each_stage_of_the_cascade_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in TIERS:
        image = stages(DOCKERFILES / f"{BRANCHY[name]['image'].removeprefix('branchy-')}.Dockerfile")[-1]
        with monkeypatch.context() as environment:
            for variable, value in {**pairs(image, "ENV"), **BRANCHY[name]["environment"]}.items():
                if variable.startswith("BRANCHY_"):
                    environment.setenv(variable, value)
            assert load(ServeSettings, {}).tier == (name,)
