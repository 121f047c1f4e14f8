from __future__ import annotations

import copy
import re

import pytest

from branchy.cluster.choices import BUNDLE, Choices, chosen, image_name, parse_pairs, parse_replicas
from branchy.cluster.objects import component, containers, key, labels, namespaces, of_kind, ours, tiers, topic_jobs
from branchy.errors import UsageError


def images(objects) -> dict[str, set[str]]:
    return {component(each): {c["image"] for c in containers(each)} for each in objects if list(containers(each))}


def test_every_object_is_labelled_as_deployed_and_what_was_rendered_is_left_as_it_was(local_objects):
    before = copy.deepcopy(local_objects)
    for each in before:
        each["metadata"].pop("labels", None)
    kept = copy.deepcopy(before)
    found = chosen(before, Choices(namespace="other"))
    assert before == kept
    assert all(ours(each) and labels(each)["app.kubernetes.io/managed-by"] == "branchy-deploy" for each in found)


def test_one_image_is_that_of_all_that_runs_branchy_with_the_bundle(local_objects):
    found = images(chosen(local_objects, Choices(images={"": "here/all:2"})))
    assert found["kafka"] == {"apache/kafka:4.2.0"}
    assert found["edge"] == found["fog"] == found["cloud"] == found["topics"] == {"here/all:2"}
    assert found["device"] == {"here/all:2", "branchy-train:0.1.0"}


def test_an_image_is_named_as_in_the_overlay_and_two_can_change_places(local_objects):
    given = {"branchy-edge": "branchy-cloud:9", "branchy-cloud": "branchy-edge:9"}
    found = images(chosen(local_objects, Choices(images=given)))
    assert (found["edge"], found["fog"]) == ({"branchy-cloud:9"}, {"branchy-edge:9"})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("branchy-edge:1", "branchy-edge"),
        ("registry:5000/a/b", "registry:5000/a/b"),
        ("registry:5000/a/b:1", "registry:5000/a/b"),
        (f"a/b:1@sha256:{'0' * 64}", "a/b"),
    ],
)
def test_an_images_name_is_what_is_before_tag_and_digest(image, name):
    assert image_name(image) == name


@pytest.mark.parametrize("image", ["branchy-edge", "registry:5000/b", "Upper:1", "a b:1", "a:1;rm", "b@sha256:12"])
def test_an_image_without_tag_or_digest_is_refused_as_its_change_would_not_be_seen(local_objects, image):
    with pytest.raises(UsageError, match=re.escape(f"--image {image}: expected one with its tag or digest")):
        chosen(local_objects, Choices(images={"": image}))


def test_an_image_that_the_overlay_does_not_have_is_named_with_those_it_has(local_objects):
    with pytest.raises(UsageError, match=r"no image nginx; it has apache/kafka, branchy-cloud, branchy-edge"):
        chosen(local_objects, Choices(images={"nginx": "nginx:1"}))


def test_replicas_are_of_all_tiers_or_of_one_and_never_of_the_brokers(local_objects):
    found = chosen(local_objects, Choices(replicas={"": 4, "fog": 2}))
    assert {component(each): each["spec"]["replicas"] for each in of_kind(found, "StatefulSet")} == {
        "kafka": 3,
        "edge": 4,
        "fog": 2,
        "cloud": 4,
    }
    with pytest.raises(UsageError, match="--replicas kafka: expected one of the tiers cloud, edge, fog"):
        chosen(local_objects, Choices(replicas={"kafka": 5}))


def test_a_bundle_is_on_the_pods_that_hold_it_so_that_another_one_replaces_them(local_objects):
    found = chosen(local_objects, Choices(bundle="abc"))
    marked = {
        component(each): each["spec"]["template"]["metadata"].get("annotations", {}).get(BUNDLE)
        for each in found
        if "template" in each.get("spec", {})
    }
    assert marked == {"kafka": None, "topics": "abc", "device": "abc", "edge": "abc", "fog": "abc", "cloud": "abc"}


def test_the_job_of_the_topics_stays_so_that_applying_again_changes_nothing(local_objects):
    (job,) = topic_jobs(local_objects)
    job = copy.deepcopy(job)
    job["spec"]["ttlSecondsAfterFinished"] = 300
    assert "ttlSecondsAfterFinished" not in chosen([job], Choices())[0]["spec"]


def _object(kind: str, name: str, namespace: str, **more):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **more}


def test_a_namespace_is_another_wherever_it_is_named():
    policy = _object("NetworkPolicy", "up", "branchy-edge")
    policy["spec"] = {"from": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "branchy-cloud"}}}}
    settings = _object("ConfigMap", "s", "branchy-edge")
    settings["data"] = {
        "BRANCHY_FRONT_BROKERS": "kafka-0.kafka.branchy-cloud.svc:9092,kafka-1.kafka.branchy-cloud.svc:9092",
        "query": 'max(age{namespace="branchy-edge",tier="edge"})',
        "untouched": "branchy-edge: branchy-cloud.example",
    }
    found = chosen([policy, settings, _object("Secret", "x", "branchy-cloud")], Choices(namespace="lab"))
    assert namespaces(found) == ["lab-cloud", "lab-edge"]
    assert found[0]["spec"]["from"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "lab-cloud"}
    assert found[1]["data"] == {
        "BRANCHY_FRONT_BROKERS": "kafka-0.kafka.lab-cloud.svc:9092,kafka-1.kafka.lab-cloud.svc:9092",
        "query": 'max(age{namespace="lab-edge",tier="edge"})',
        "untouched": "branchy-edge: branchy-cloud.example",
    }


def test_a_namespace_of_an_overlay_with_one_may_be_called_anything(local_objects):
    found = chosen(local_objects, Choices(namespace="team-7"))
    assert namespaces(found) == ["team-7"]
    assert [key(each).name for each in of_kind(found, "Namespace")] == ["team-7"]


def test_namespaces_that_follow_no_rule_and_impossible_names_are_refused():
    with pytest.raises(UsageError, match="the overlay has several, a, b"):
        chosen([_object("ConfigMap", "x", "a"), _object("ConfigMap", "x", "b")], Choices(namespace="c"))
    for name in ("Upper", "-a", "a" * 64, "a.b"):
        with pytest.raises(UsageError, match="expected up to 63"):
            chosen([_object("ConfigMap", "x", "a")], Choices(namespace=name))


def test_pairs_are_by_name_or_for_all():
    assert parse_pairs("--image", ["a:1", "b=c/d:2"]) == {"": "a:1", "b": "c/d:2"}
    assert parse_replicas(["3", "edge=0"]) == {"": 3, "edge": 0}
    for given in (["a=b", "a=c"], ["x", "y"], ["=x"], ["a="], [""]):
        with pytest.raises(UsageError, match="--image"):
            parse_pairs("--image", given)
    for given in ("-1", "edge=x", "edge=1.5", "99999", "edge=²"):
        with pytest.raises(UsageError, match="expected a number from 0 to 10000"):
            parse_replicas([given])


def test_the_tiers_are_those_that_run_one(local_objects):
    assert [component(each) for each in tiers(local_objects)] == ["cloud", "edge", "fog"]
