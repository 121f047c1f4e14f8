from __future__ import annotations

import pytest

from branchy.errors import ClusterError
from branchy.runner.deployment_delete import find


def test_what_was_applied_goes_and_the_data_stays(deployed):
    deployed.apply()
    deployed.delete()
    assert set(deployed.fake.objects) == {
        ("namespaces", "", "branchy"),
        *(("persistentvolumeclaims", "branchy", f"data-kafka-{n}") for n in range(3)),
    }


def test_with_data_nothing_is_left(deployed):
    deployed.apply()
    deployed.delete(data=True)
    assert not deployed.fake.objects


def test_what_others_have_there_stays(deployed):
    deployed.apply()
    other = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": "branchy", "labels": {}},
    }
    claim = {"metadata": {"name": "bundle", "namespace": "branchy"}}
    deployed.fake.put(other)
    deployed.fake.objects["persistentvolumeclaims", "branchy", "bundle"] = claim
    deployed.delete()
    assert deployed.fake.names("configmaps") == ["theirs"]
    assert "bundle" in deployed.fake.names("persistentvolumeclaims")


def test_a_namespace_that_is_not_branchys_stays_even_with_data(deployed):
    deployed.apply()
    deployed.fake.objects["namespaces", "", "branchy"]["metadata"]["labels"] = {}
    deployed.delete(data=True)
    assert set(deployed.fake.objects) == {("namespaces", "", "branchy")}


def test_the_tiers_have_ended_before_their_brokers_go(deployed):
    deployed.apply()
    original, too_early = deployed.fake.delete, []

    def slowly(where):
        """A tier's pods take until somebody has waited for them."""
        pods = {k: v for k, v in deployed.fake.objects.items() if k[0] == "pods" and k[2].startswith(where[2])}
        result = original(where)
        if where[0] == "statefulsets" and where[2].endswith("-tier"):
            deployed.fake.objects.update(pods)
        if where == ("statefulsets", "branchy", "kafka"):
            too_early.extend(k[2] for k in deployed.fake.objects if k[0] == "pods" and "tier" in k[2])
        return result

    def sleep(seconds: float) -> None:
        deployed.now_s += seconds
        for name in [k for k in deployed.fake.objects if k[0] == "pods" and "tier" in k[2]]:
            del deployed.fake.objects[name]

    deployed.fake.delete, deployed.sleep = slowly, sleep
    deployed.delete()
    assert not too_early
    assert deployed.now_s > 0
    assert deployed.fake.names("pods") == []


def test_what_does_not_go_is_named(deployed):
    deployed.apply()
    deployed.fake.delete = lambda where: (200, {})
    with pytest.raises(ClusterError, match=r"not gone in time: .*the same command goes on from there"):
        deployed.delete(timeout_s=5)


def test_what_may_not_be_deleted_is_told_in_the_servers_words(deployed):
    deployed.apply()
    deployed.fake.fail("DELETE", "/statefulsets/", 403, 'User "x" cannot delete resource "statefulsets"')
    with pytest.raises(ClusterError, match='User "x" cannot delete resource "statefulsets"'):
        deployed.delete()


@pytest.mark.parametrize(
    ("verb", "plural", "words"),
    [
        ("delete", "statefulsets", "delete statefulsets of apps in branchy"),
        ("delete", "secrets", None),
        ("get", "services", "get services in branchy"),
        ("list", "pods", "list pods in branchy"),
        ("delete", "persistentvolumeclaims", None),
        ("delete", "namespaces", None),
    ],
)
def test_a_right_that_is_missing_for_what_is_there_is_named_before_anything_goes(deployed, verb, plural, words):
    deployed.apply()
    before = set(deployed.fake.objects)
    deployed.fake.denied.add((verb, plural))
    if words is None:  # there is none, or it stays
        deployed.delete()
        return
    with pytest.raises(ClusterError, match=f"^you may not {words}; nothing was changed; ask who runs the cluster"):
        find(deployed.api, deployed.objects, data=False)
    assert set(deployed.fake.objects) == before


@pytest.mark.parametrize(
    ("plural", "words"),
    [
        ("persistentvolumeclaims", "delete persistentvolumeclaims in branchy"),
        ("namespaces", "delete namespaces in the cluster"),
    ],
)
def test_rights_to_delete_the_data_are_asked_for_where_it_goes(deployed, plural, words):
    deployed.apply()
    deployed.fake.denied.add(("delete", plural))
    with pytest.raises(ClusterError, match=f"^you may not {words}"):
        find(deployed.api, deployed.objects, data=True)
    assert deployed.fake.names("statefulsets")


def test_it_is_asked_what_is_there_and_whether_the_data_goes(deployed):
    deployed.apply()
    kept, all_of_it = (find(deployed.api, deployed.objects, data=data) for data in (False, True))
    assert kept.question("here") == "Delete 23 objects in branchy of here (the data of 3 disks stays)?"
    assert "3 disks with all their data, and the namespaces with all that is in them" in all_of_it.question("here")
    assert not kept.is_empty
    deployed.delete(data=True)
    assert find(deployed.api, deployed.objects, data=True).is_empty
