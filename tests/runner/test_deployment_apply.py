from __future__ import annotations

import pytest

from branchy.cluster.objects import key
from branchy.errors import ClusterError

PULL = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "b:2"'}}
CRASH = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
    "lastState": {"terminated": {"exitCode": 2}},
}


def test_what_others_need_is_applied_and_ready_before_them(deployed):
    deployed.apply()
    applied = deployed.fake.applied
    assert len(applied) == 24
    assert applied[0] == "Namespace/branchy"
    order = ["StatefulSet/kafka", "Job/topics", "StatefulSet/edge-tier", "Job/device"]
    assert [applied.index(each) for each in order] == sorted(applied.index(each) for each in order)
    for before, after in (
        ("kafka: 3 of 3 ready", "created Job topics"),
        ("topics: complete", "created StatefulSet edge"),
    ):
        (said,) = [n for n, line in enumerate(deployed.said) if line.startswith(after)]
        assert deployed.said.index(before) < said


def test_applied_again_nothing_is_sent(deployed):
    deployed.apply()
    assert deployed.apply().changes_nothing
    assert deployed.fake.applied == []
    assert deployed.said == ["kafka: 3 of 3 ready", "topics: complete"] + [
        f"{tier}: 1 of 1 ready" for tier in ("cloud", "edge", "fog")
    ]


def test_another_image_changes_the_tiers_alone(deployed):
    deployed.apply()
    deployed.set_image("b:2")
    deployed.apply()
    assert deployed.fake.applied == [f"StatefulSet/{tier}-tier" for tier in ("cloud", "edge", "fog")]
    assert deployed.fake.get("pods", "edge-tier-0")["spec"]["containers"][0]["image"] == "b:2"


def test_a_job_is_made_anew_before_what_needs_it_and_one_that_runs_is_not_stopped(deployed):
    deployed.apply()
    started = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "device", "namespace": "branchy"}}
    deployed.fake.put({**started, "spec": {"suspend": False}})
    (job,) = [each for each in deployed.objects if key(each).name == "topics"]
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "b:2"
    deployed.apply()
    assert deployed.fake.applied == ["Job/topics"]
    assert "replaced Job topics in branchy" in deployed.said
    assert deployed.fake.get("jobs", "device")["spec"]["suspend"] is False
    (device,) = [each for each in deployed.objects if key(each).name == "device"]
    device["spec"]["backoffLimit"] = 5
    deployed.apply()
    changed = deployed.fake.get("jobs", "device")["spec"]
    assert (changed["suspend"], changed["backoffLimit"]) == (False, 5)


def test_settings_of_before_go_when_all_is_ready(deployed):
    deployed.apply()
    old = deployed.objects[1]["metadata"]["name"]
    deployed.objects[1]["metadata"]["name"] = "cloud-settings-new"
    deployed.apply()
    assert old not in deployed.fake.names("configmaps")
    assert deployed.said[-1] == f"removed ConfigMap {old} in branchy"


def test_why_a_pod_is_not_ready_is_told_once_and_waited_for_until_it_is(deployed):
    deployed.fake.broken["edge-tier"] = PULL
    looks = 0

    def heal() -> None:
        nonlocal looks
        looks += 1
        deployed.sleep(2)
        if looks == 3:
            deployed.fake.broken.clear()
            deployed.fake.settle(deployed.fake.get("statefulsets", "edge-tier"))

    deployed.fake.on_watch = heal
    deployed.apply()
    assert deployed.said.count('  edge-tier-0: ImagePullBackOff: Back-off pulling image "b:2"') == 1
    assert deployed.said.index("edge: 0 of 1 ready") < deployed.said.index("edge: 1 of 1 ready")


def test_what_does_not_get_ready_in_time_is_named_with_why_and_what_stands(deployed):
    deployed.fake.broken["edge-tier"] = PULL
    with pytest.raises(ClusterError) as caught:
        deployed.apply(timeout_s=60)
    assert str(caught.value) == (
        "not ready within 60 s: StatefulSet edge-tier in branchy (0 of 1 ready): edge-tier-0: ImagePullBackOff: "
        'Back-off pulling image "b:2"; objects applied so far: 23; they stay, and the same command goes on from there'
    )
    deployed.fake.broken.clear()
    deployed.fake.settle(deployed.fake.get("statefulsets", "edge-tier"))
    deployed.apply()
    assert deployed.fake.applied == ["Job/device"]


def test_of_a_container_that_ends_the_last_lines_are_shown(deployed):
    deployed.fake.broken["fog-tier"] = CRASH
    deployed.fake.logs["fog-tier-0"] = ["branchy: bundle /bundle: nothing is there"]
    with pytest.raises(ClusterError, match="CrashLoopBackOff: back-off 10s"):
        deployed.apply(timeout_s=10)
    assert deployed.said.count("    branchy: bundle /bundle: nothing is there") == 1


def test_a_job_that_failed_ends_it_at_once(deployed):
    original = deployed.fake.settle

    def fail(live) -> None:
        original(live)
        if live["metadata"]["name"] == "topics":
            live["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "too many retries"}]}

    deployed.fake.settle = fail
    with pytest.raises(ClusterError, match="Job topics in branchy failed: too many retries; branchy deploy logs"):
        deployed.apply()
    assert deployed.now_s == 0
    assert "StatefulSet/edge-tier" not in deployed.fake.applied


def test_a_set_whose_pods_are_refused_is_told_with_the_warning(deployed):
    original = deployed.fake.settle

    def refuse(live) -> None:
        original(live)
        if live["metadata"]["name"] == "kafka" and live["kind"] == "StatefulSet":
            live["status"]["readyReplicas"] = 0
            for number in range(3):
                deployed.fake.objects.pop(("pods", "branchy", f"kafka-{number}"), None)
            event = {
                "metadata": {"name": "e", "namespace": "branchy"},
                "involvedObject": {"uid": live["metadata"]["uid"]},
                "type": "Warning",
                "reason": "FailedCreate",
                "message": "exceeded quota",
            }
            deployed.fake.objects["events", "branchy", "e"] = event

    deployed.fake.settle = refuse
    with pytest.raises(ClusterError, match="kafka: FailedCreate: exceeded quota"):
        deployed.apply(timeout_s=5)
    assert "kafka: FailedCreate: exceeded quota" in deployed.said


def test_watches_that_break_off_only_make_it_look_less_often(deployed):
    deployed.fake.broken["edge-tier"] = PULL
    deployed.fake.drop_watches = True
    deployed.fake.on_watch = lambda: None
    with pytest.raises(ClusterError, match="not ready within 20 s"):
        deployed.apply(timeout_s=20)
    assert 20 < deployed.now_s < 25


def test_what_the_server_refuses_half_way_says_what_stands_and_the_same_again_goes_on(deployed):
    deployed.fake.put(deployed.objects[0])
    deployed.plan()
    original = deployed.fake.apply

    def refuse(manifest, query):
        if manifest["metadata"]["name"] == "fog-tier" and manifest["kind"] == "StatefulSet" and "dryRun" not in query:
            return 403, {"message": "exceeded quota"}
        return original(manifest, query)

    deployed.fake.apply = refuse
    with pytest.raises(
        ClusterError, match=r"^StatefulSet fog-tier in branchy: .*403: exceeded quota; objects applied so far: 21;"
    ):
        deployed.apply()
    deployed.fake.apply = original
    deployed.apply()
    assert deployed.fake.applied == ["StatefulSet/fog-tier", "Job/device"]


def test_a_server_that_answers_no_more_half_way_is_told_with_what_stands(deployed, monkeypatch):
    monkeypatch.setattr("branchy.cluster.session.ANSWER_S", 0.2)
    deployed.fake.broken["kafka"] = PULL  # so that its pods are asked for
    deployed.fake.hang("GET", "/pods?")
    with pytest.raises(
        ClusterError, match=r"did not answer GET /api/v1/namespaces/branchy/pods .*; objects applied so far: 19;"
    ):
        deployed.apply()
    deployed.fake.hangs.clear()
    deployed.fake.broken.clear()
    deployed.fake.settle(deployed.fake.get("statefulsets", "kafka"))
    deployed.apply()
    assert len(deployed.fake.applied) == 5


def test_what_is_refused_once_its_namespace_is_there_leaves_an_empty_one(deployed):
    deployed.fake.fail("PATCH", "/services/kafka", 422, "spec.ports: Invalid value", times=99)
    with pytest.raises(ClusterError, match=r"Service kafka in branchy: .*Invalid value; objects applied so far: 1;"):
        deployed.apply()
    assert set(deployed.fake.objects) == {("namespaces", "", "branchy")}


def test_a_server_that_is_busy_is_asked_again(deployed):
    deployed.fake.fail("PATCH", "/services/kafka", 429, "slow down", headers={"Retry-After": "3"})
    deployed.fake.fail("PATCH", "/statefulsets/kafka", 500, "leader changed")
    deployed.apply()
    assert len(deployed.fake.applied) == 24
    assert deployed.now_s == 3.5


def test_a_part_that_somebody_deletes_meanwhile_is_named(deployed):
    deployed.fake.broken["kafka"] = PULL

    def remove() -> None:
        deployed.fake.delete(("statefulsets", "branchy", "kafka"))

    deployed.fake.on_watch = remove
    with pytest.raises(ClusterError, match="StatefulSet kafka in branchy is gone: somebody has deleted it"):
        deployed.apply()
