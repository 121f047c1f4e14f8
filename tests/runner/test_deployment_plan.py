from __future__ import annotations

import copy

import pytest

from branchy.cluster.changes import Action
from branchy.cluster.objects import brokers, key
from branchy.errors import ClusterError

EVERYTHING = 24


def test_before_the_first_apply_everything_is_created_and_nothing_was(deployed):
    plan = deployed.plan()
    assert [step.action for step in plan.steps] == [Action.CREATE] * EVERYTHING
    assert not deployed.fake.objects
    assert list(plan.lines())[-1] == "24 create, 0 unchanged"
    unseen = [step.key for step in plan.steps if not step.checked]
    assert unseen == [key(each) for each in deployed.objects[1:]], "only the namespace's own can be tried"
    assert "(not checked by the server yet)" in list(plan.lines())[1]


def test_in_a_namespace_that_is_there_the_server_tries_everything_and_keeps_nothing(deployed):
    deployed.fake.put(deployed.objects[0])
    plan = deployed.plan()
    assert all(step.checked for step in plan.steps)
    assert len(deployed.fake.objects) == 1


def test_after_an_apply_nothing_changes(deployed):
    deployed.apply()
    plan = deployed.plan()
    assert plan.changes_nothing
    assert list(plan.lines()) == ["24 unchanged"]


def test_each_field_that_would_change_is_told(deployed):
    deployed.apply()
    deployed.set_image("b:2")
    lines = list(deployed.plan().lines())
    assert lines[0] == "change    StatefulSet cloud-tier in branchy"
    assert lines[1].split() == ["spec.template.spec.containers[tier].image:", '"branchy-cloud:0.1.0"', "->", '"b:2"']
    assert lines[-1] == "3 change, 21 unchanged"


def test_a_job_that_cannot_be_changed_would_be_made_anew(deployed):
    deployed.apply()
    (job,) = [each for each in deployed.objects if key(each).name == "topics"]
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "b:2"
    (step,) = [each for each in deployed.plan().steps if each.action is not Action.KEEP]
    assert (step.key.name, step.action) == ("topics", Action.REPLACE)
    assert [change.path for change in step.changes] == ["spec.template.spec.containers[topics].image"]


def test_settings_of_before_would_be_removed_and_what_others_made_would_not(deployed):
    deployed.apply()
    old = deployed.objects[1]
    deployed.objects[1] = copy.deepcopy(old)
    deployed.objects[1]["metadata"]["name"] = "cloud-settings-new"
    theirs = {"app.kubernetes.io/part-of": "branchy"}
    deployed.fake.put(_config_map("made-by-hand", theirs))
    found = {step.key.name: step.action for step in deployed.plan().steps if step.action is not Action.KEEP}
    assert found == {"cloud-settings-new": Action.CREATE, old["metadata"]["name"]: Action.REMOVE}


def _config_map(name: str, labels: dict[str, str] | None = None):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "branchy", "labels": labels or {}},
    }


def refusal(deployed, **options) -> str:
    """What a plan is refused with, and an apply too; nothing is changed."""
    before = copy.deepcopy(deployed.fake.objects)
    with pytest.raises(ClusterError) as planned:
        deployed.plan(**options)
    with pytest.raises(ClusterError) as applied:
        deployed.apply(**options)
    assert str(applied.value) == str(planned.value)
    assert "\n" not in str(planned.value)
    assert (deployed.fake.objects, deployed.fake.applied) == (before, [])
    return str(planned.value)


def test_a_namespace_that_is_being_deleted(deployed):
    live = deployed.fake.put(deployed.objects[0])
    deployed.fake.objects["namespaces", "", "branchy"] = {**live, "status": {"phase": "Terminating"}}
    assert refusal(deployed).startswith("namespace branchy is being deleted: wait until it is gone")


def test_a_namespace_that_the_overlay_does_not_make_and_is_not_there(deployed):
    del deployed.objects[0]
    assert refusal(deployed) == "namespace branchy: expected one, found none: kubectl create namespace branchy"


def test_a_name_that_something_else_has_taken(deployed):
    deployed.fake.put(deployed.objects[0])
    name = deployed.objects[1]["metadata"]["name"]
    deployed.fake.put(_config_map(name))
    assert f"ConfigMap {name} in branchy is there already, and not branchy's" in refusal(deployed)


def test_a_namespace_that_is_somebody_elses_is_not_taken_over(deployed):
    deployed.fake.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "branchy", "labels": {}}})
    assert "Namespace branchy is there already, and not branchy's" in refusal(deployed)


def test_rights_that_are_missing_name_verb_and_resource(deployed):
    deployed.fake.denied |= {("patch", "statefulsets"), ("create", "namespaces")}
    found = refusal(deployed)
    assert "you may not create namespaces in the cluster" in found
    assert "you may not patch statefulsets of apps in branchy" in found


@pytest.mark.parametrize(
    ("verb", "plural"), [("list", "secrets"), ("list", "events"), ("watch", "pods"), ("get", "pods")]
)
def test_rights_to_follow_an_apply_and_to_find_what_is_left_over_are_asked_for_too(deployed, verb, plural):
    deployed.fake.denied.add((verb, plural))
    assert f"you may not {verb} {plural}" in refusal(deployed)


def test_a_right_to_remove_settings_of_before_is_asked_for_where_there_are_some(deployed):
    deployed.fake.denied.add(("delete", "configmaps"))
    deployed.apply()
    assert deployed.plan().changes_nothing
    deployed.objects[1]["metadata"]["name"] = "cloud-settings-new"
    assert refusal(deployed).startswith("you may not delete configmaps in branchy; nothing was changed")


def test_a_right_to_make_a_job_anew_is_asked_for_where_one_is(deployed):
    deployed.fake.denied.add(("delete", "jobs"))
    deployed.apply()
    assert deployed.plan().changes_nothing
    (job,) = [each for each in deployed.objects if key(each).name == "topics"]
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "b:2"
    assert refusal(deployed).startswith("you may not delete jobs of batch in branchy")


def with_users(deployed) -> None:
    """The brokers get users where their disks are formatted, as in the overlay `tls`."""
    (kafka,) = brokers(deployed.objects)
    kafka["spec"]["template"]["spec"]["initContainers"][0]["command"].append("@/etc/branchy-users/format.arguments")


def test_brokers_whose_disks_were_formatted_without_users_get_none(deployed):
    deployed.apply()
    with_users(deployed)
    assert refusal(deployed) == (
        "StatefulSet kafka in branchy: its disks were formatted without users (SCRAM), the overlay has some, and "
        "nobody could log in: choose another --namespace, or branchy deploy delete --data first, which takes the "
        "topics too"
    )
    deployed.delete(data=True)
    deployed.apply()


def test_brokers_that_were_formatted_with_users_or_have_no_disk_are_changed(deployed):
    with_users(deployed)
    deployed.apply()
    assert deployed.plan().changes_nothing
    deployed.delete(data=True)
    (kafka,) = brokers(deployed.objects)
    command = kafka["spec"]["template"]["spec"]["initContainers"][0]["command"]
    users = command.pop()
    del kafka["spec"]["volumeClaimTemplates"]
    deployed.apply()
    command.append(users)
    assert [step.key.name for step in deployed.plan().steps if step.action is Action.CHANGE] == ["kafka"]


def test_a_kind_that_the_cluster_does_not_know(deployed):
    scaled = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "x", "namespace": "branchy"},
    }
    deployed.objects.append(scaled)
    assert "does not know the kind ScaledObject (keda.sh/v1alpha1); install KEDA first" in refusal(deployed)


def test_a_field_that_others_have_set_names_them_and_can_be_taken_over(deployed):
    deployed.apply()
    meta = {"name": "edge-tier", "namespace": "branchy"}
    scaled = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {"replicas": 5}}
    deployed.fake.put(scaled, "kubectl scale")
    found = refusal(deployed)
    assert "StatefulSet edge-tier in branchy: others have set what would be changed: .spec.replicas" in found
    assert 'conflict with "kubectl scale"' in found
    assert "--force-conflicts takes it over" in found
    assert [str(c) for s in deployed.plan(force=True).steps for c in s.changes] == ["spec.replicas: 5 -> 1"]
    deployed.apply(force=True)
    assert deployed.fake.get("statefulsets", "edge-tier")["spec"]["replicas"] == 1


def test_a_field_that_cannot_be_changed_and_what_to_do(deployed):
    deployed.apply()
    (kafka,) = [each for each in deployed.objects if key(each).kind == "StatefulSet" and key(each).name == "kafka"]
    kafka["spec"]["serviceName"] = "other"
    found = refusal(deployed)
    assert "StatefulSet kafka in branchy: spec cannot be changed once it is there" in found
    assert "delete it first" in found


def test_an_unknown_field_is_told_in_the_servers_words(deployed):
    deployed.fake.put(deployed.objects[0])
    words = "failed to create typed patch object: .spec.replcias: field not declared in schema"
    deployed.fake.fail("PATCH", "/statefulsets/edge-tier", 500, words, times=2)
    assert words in refusal(deployed)


def test_much_that_is_wrong_is_still_one_line(deployed):
    deployed.fake.put(deployed.objects[0])
    deployed.fake.fail("PATCH", "/configmaps/", 422, "no", times=99)
    deployed.fake.fail("PATCH", "/services/", 422, "no", times=99)
    assert "(and 4 more)" in refusal(deployed)
