from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from branchy.cluster.changes import changes, declared_changes, live_choices

json = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def _set(image: str, *more: str):
    names = [*more, "tier"]
    return {"kind": "StatefulSet", "spec": {"containers": [{"name": n, "image": image} for n in names]}}


def test_a_field_is_named_by_its_path_and_a_container_by_its_name():
    (found,) = changes(_set("a:1"), _set("a:2"))
    assert str(found) == 'spec.containers[tier].image: "a:1" -> "a:2"'
    (found,) = changes(_set("a:1"), _set("a:1", "first"))
    assert (found.path, found.old) == ("spec.containers[first]", None)


def test_items_of_one_name_are_held_against_each_other_in_order():
    def mounts(path: str):
        return {"mounts": [{"name": "data", "path": "/a"}, {"name": "data", "path": path}]}

    (found,) = changes(mounts("/b"), mounts("/c"))
    assert found.path == "mounts[1].path"


def test_the_servers_own_bookkeeping_is_no_change():
    live = {
        "metadata": {"name": "x", "resourceVersion": "1", "managedFields": [{"a": 1}], "uid": "u"},
        "status": {"a": 1},
    }
    after = {"metadata": {"name": "x", "resourceVersion": "2", "generation": 2}, "status": {"a": 2}}
    assert not changes(live, after)


@given(json, json)
def test_there_is_a_change_exactly_where_something_differs(one, other):
    old, new = {"spec": one}, {"spec": other}
    assert bool(changes(old, new)) == (one != other)
    assert not changes(old, copy.deepcopy(old))


def test_a_secrets_value_is_never_shown():
    (found,) = changes({"data": {"x": "b2xk"}}, {"kind": "Secret", "data": {"x": "bmV3"}})[1:] or [None]
    assert "***" in str(found)
    for path in ("BRANCHY_BACK_PASSWORD", "TOKEN", "BRANCHY_BACK_OPTIONS"):
        (found,) = changes({"data": {path: "hidden-1"}}, {"data": {path: "hidden-2"}})
        assert "hidden" not in str(found)


def test_what_cannot_be_tried_is_compared_by_the_fields_that_are_named():
    live = {"kind": "Job", "spec": {"template": {"image": "a:1", "defaulted": True}}}
    (found,) = declared_changes(live, {"kind": "Job", "spec": {"template": {"image": "a:2"}}})
    assert found.path == "spec.template.image"


def test_a_job_that_was_started_is_not_stopped_again():
    wanted = {"kind": "Job", "spec": {"suspend": True, "a": 1}}
    assert live_choices(wanted, {"spec": {"suspend": False}})["spec"] == {"suspend": False, "a": 1}
    assert wanted["spec"]["suspend"] is True
    assert live_choices({"kind": "Job", "spec": {}}, {"spec": {"suspend": False}})["spec"] == {}
