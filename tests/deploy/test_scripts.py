"""`run.sh` and `delete.sh`, with a kubectl that renders as the real one and else only notes what it is asked for."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from manifests import Manifest

FAKE = """#!/bin/sh
if [ "$1" = kustomize ]; then shift; exec {kustomize} build "$@"; fi
printf '%s\\n' "$*" >>{notes}
case "$*" in
  *"-f -"*) cat >{sent} ;;
  *"get statefulset"*) printf 'statefulset.apps/edge-tier\\nstatefulset.apps/cloud-tier\\n' ;;
  *"rollout status statefulset/kafka"*) exit {kafka_code} ;;
esac
"""


@dataclass
class Cluster:
    """What was asked of kubectl, and what was sent to it."""

    kustomize: Path
    k8s: Path
    folder: Path

    def run(self, script: str, *arguments: str, kafka_code: int = 0) -> subprocess.CompletedProcess[str]:
        fake = self.folder / "kubectl"
        files = {"notes": self.folder / "notes", "sent": self.folder / "sent"}
        fake.write_text(FAKE.format(kustomize=self.kustomize, kafka_code=kafka_code, **files))
        fake.chmod(0o755)
        environment = {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}
        line = ["sh", str(self.k8s / script), *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment, cwd=self.folder)

    @property
    def asked(self) -> list[str]:
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    @property
    def sent(self) -> list[Manifest]:
        return [each for each in yaml.safe_load_all((self.folder / "sent").read_text()) if each]


@pytest.fixture
def cluster(kustomize: Path, k8s: Path, tmp_path: Path) -> Cluster:
    return Cluster(kustomize, k8s, tmp_path)


@pytest.mark.parametrize("overlay", ["local", "edge-cloud"])
def test_run_applies_all_of_an_overlay_and_waits_for_each_part(cluster, rendered, overlay):
    done = cluster.run("run.sh", overlay)
    assert done.returncode == 0, done.stderr
    assert cluster.sent == rendered[f"overlays/{overlay}"]
    namespaces = ["branchy"] if overlay == "local" else ["branchy-cloud", "branchy-edge"]
    for namespace in namespaces:
        mine = [line.removeprefix(f"-n {namespace} ") for line in cluster.asked if line.startswith(f"-n {namespace} ")]
        assert mine[0] == "delete job topics device --ignore-not-found", "no job's images can be changed"
        assert [line.split()[2] for line in mine if line.startswith("rollout status")] == [
            "statefulset/kafka",
            "statefulset.apps/edge-tier",
            "statefulset.apps/cloud-tier",
        ]
        assert any(line.startswith("wait job/topics") for line in mine)
    (apply,) = [line for line in cluster.asked if line.startswith("apply")]
    assert "--validate=strict" in apply


def test_run_ends_with_an_error_when_a_part_does_not_come_up(cluster):
    assert cluster.run("run.sh", kafka_code=1).returncode == 1
    assert not any("get pods" in line for line in cluster.asked)


@pytest.mark.parametrize("script", ["run.sh", "delete.sh"])
def test_an_overlay_that_is_not_there_is_wrong_use_and_nothing_is_done(cluster, script):
    done = cluster.run(script, "nonsense")
    assert done.returncode == 2
    assert done.stderr == f"{script}: expected one of autoscale edge-cloud local tls got nonsense\n"
    assert not cluster.asked


def test_delete_keeps_what_the_disks_are_claimed_in_unless_told(cluster, rendered):
    assert cluster.run("delete.sh", "local").returncode == 0
    assert cluster.sent == [m for m in rendered["overlays/local"] if m["kind"] != "Namespace"]
    assert cluster.run("delete.sh", "local", "--data").returncode == 0
    assert cluster.sent == rendered["overlays/local"]


def test_delete_waits_for_the_tiers_before_it_takes_their_brokers_and_takes_former_settings_and_secrets(
    cluster, rendered
):
    assert cluster.run("delete.sh", "edge-cloud").returncode == 0
    spaces, part = ("branchy-cloud", "branchy-edge"), "app.kubernetes.io/part-of=branchy"
    labels = f"{part},app.kubernetes.io/component"
    assert cluster.asked == [
        *(f"-n {space} delete statefulset -l {labels} --cascade=foreground --wait" for space in spaces),
        "delete --ignore-not-found --wait -f -",
        *(f"-n {space} delete configmap,secret -l {part}" for space in spaces),
    ]
    manifests = [m for m in rendered["overlays/edge-cloud"] if m["kind"] == "StatefulSet"]
    taken = {m["metadata"]["name"] for m in manifests if "app.kubernetes.io/component" in m["metadata"]["labels"]}
    assert taken == {"edge-tier", "fog-tier", "cloud-tier"}, "the brokers have no component"


def test_delete_takes_no_other_word(cluster):
    done = cluster.run("delete.sh", "local", "--dta")
    assert (done.returncode, cluster.asked) == (2, [])
    assert "expected --data or nothing, got --dta" in done.stderr
