from __future__ import annotations

import pytest

from branchy.cluster.progress import Phase, Trouble, last_warning, pods_of, progress, trouble


def _set(wanted: int = 2, generation: int = 3, **status):
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "edge-tier", "generation": generation, "uid": "u"},
        "spec": {"replicas": wanted},
        "status": {"observedGeneration": 3, "replicas": 2, "currentRevision": "b", "updateRevision": "b"} | status,
    }


@pytest.mark.parametrize(
    ("live", "phase", "line"),
    [
        (_set(readyReplicas=2, updatedReplicas=2), Phase.DONE, "2 of 2 ready"),
        (_set(readyReplicas=2, currentReplicas=2), Phase.DONE, "2 of 2 ready"),
        (_set(readyReplicas=1, updatedReplicas=2), Phase.WAITS, "1 of 2 ready"),
        (_set(readyReplicas=2, updatedReplicas=1, currentRevision="a"), Phase.WAITS, "2 of 2 ready, 1 of 2 are new"),
        (_set(readyReplicas=2, updatedReplicas=2, generation=4), Phase.WAITS, "0 of 2 ready"),
        (_set(1, readyReplicas=2, updatedReplicas=2), Phase.WAITS, "2 of 1 ready"),
        (_set(0, replicas=0), Phase.DONE, "0 of 0 ready"),
    ],
)
def test_a_set_is_done_when_all_its_replicas_are_ready_and_new_as_of_its_last_change(live, phase, line):
    found = progress(live)
    assert (found.phase, found.line) == (phase, line)


def _job(suspend: bool = False, **status):
    return {"kind": "Job", "metadata": {"name": "topics"}, "spec": {"suspend": suspend}, "status": status}


def test_a_job_is_done_when_it_is_complete_or_waits_to_be_started_and_fails_with_the_reason():
    assert progress(_job()).phase is Phase.WAITS
    assert progress(_job(active=1)).line == "runs"
    assert progress(_job(suspend=True)).phase is Phase.DONE
    assert progress(_job(conditions=[{"type": "Complete", "status": "True"}])).phase is Phase.DONE
    assert progress(_job(conditions=[{"type": "Failed", "status": "False"}])).phase is Phase.WAITS
    found = progress(_job(conditions=[{"type": "Failed", "status": "True", "message": "limit reached"}]))
    assert (found.phase, found.line) == (Phase.FAILED, "failed: limit reached")


def _pod(name: str = "edge-tier-0", **status):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "status": status}


def _container(**more):
    return _pod(containerStatuses=[{"name": "tier", **more}])


BACK_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"\n'}}
CRASH = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("pod", "words", "container"),
    [
        (_container(state=BACK_OFF), 'ImagePullBackOff: Back-off pulling image "x"', ""),
        (
            _container(state=CRASH, lastState=KILLED),
            "CrashLoopBackOff: back-off 10s (ended with exit code 137, OOMKilled)",
            "tier",
        ),
        (_container(state={"terminated": {"exitCode": 2, "reason": "Error"}}), "Error: ended with exit code 2", "tier"),
        (
            _pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]),
            "Unschedulable: 0/3",
            "",
        ),
        (
            _pod(initContainerStatuses=[{"name": "bundle", "state": {"waiting": {"reason": "ErrImagePull"}}}]),
            "ErrImagePull",
            "",
        ),
        (_pod(phase="Failed", reason="Evicted", message="disk pressure"), "Evicted: disk pressure", ""),
    ],
)
def test_why_a_pod_is_not_ready_is_told_in_one_line(pod, words, container):
    found = trouble(pod)
    assert isinstance(found, Trouble)
    assert str(found) == f"edge-tier-0: {words}"
    assert found.container == container


@pytest.mark.parametrize(
    "pod",
    [
        _pod(),
        _pod(phase="Succeeded", containerStatuses=[{"name": "t", "state": {"terminated": {"exitCode": 0}}}]),
        _container(state={"running": {}}),
        _container(state={"waiting": {"reason": "ContainerCreating"}}),
        _pod(conditions=[{"type": "Ready", "status": "True"}]),
        {**_container(state=BACK_OFF), "metadata": {"name": "x", "deletionTimestamp": "now"}},
    ],
)
def test_a_pod_that_only_needs_its_time_or_goes_is_no_trouble(pod):
    assert trouble(pod) is None


def test_pods_are_known_by_their_owner_and_come_in_the_order_of_their_ordinals():
    pods = [_pod(f"edge-tier-{n}") for n in (10, 2, 0)]
    for pod in pods:
        pod["metadata"]["ownerReferences"] = [{"uid": "u"}]
    found = pods_of(_set(), [*pods, _pod("another-0")])
    assert [each["metadata"]["name"] for each in found] == ["edge-tier-0", "edge-tier-2", "edge-tier-10"]


def test_the_newest_warning_of_an_object_is_told():
    def event(message: str, at: str, uid: str = "u", kind: str = "Warning"):
        return {
            "involvedObject": {"uid": uid},
            "type": kind,
            "reason": "FailedCreate",
            "message": message,
            "lastTimestamp": at,
        }

    events = [
        event("new", "2026-02"),
        event("old", "2026-01"),
        event("other", "2026-03", uid="v"),
        event("fine", "2027", kind="Normal"),
    ]
    assert last_warning(_set(), events) == "FailedCreate: new"
    assert last_warning(_set(), []) == ""
