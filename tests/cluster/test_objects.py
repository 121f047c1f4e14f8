from __future__ import annotations

from branchy.cluster.objects import in_order, key, step, variables


def test_what_others_need_is_applied_before_them(local_objects):
    steps = [step(each) for each in local_objects]
    assert steps == sorted(steps)
    kinds = [f"{key(each).kind} {key(each).name}" for each in in_order(reversed(local_objects))]
    order = [
        "Namespace branchy",
        "Service kafka",
        "StatefulSet kafka",
        "Job topics",
        "StatefulSet edge-tier",
        "Job device",
    ]
    assert [kinds.index(each) for each in order] == sorted(kinds.index(each) for each in order)


def test_variables_come_from_the_config_maps_of_the_namespace_and_what_is_said_beside_wins():
    def settings(namespace: str, value: str):
        meta = {"name": "s", "namespace": namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"A": value, "B": value}}

    container = {
        "envFrom": [
            {"configMapRef": {"name": "s"}},
            {"configMapRef": {"name": "unknown"}},
            {"secretRef": {"name": "x"}},
        ],
        "env": [
            {"name": "B", "value": "own"},
            {"name": "C", "valueFrom": {"fieldRef": {}}},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "A"}}},
        ],
    }
    found = variables(container, [settings("n", "here"), settings("m", "there")], "n")
    assert found == {"A": "here", "B": "own", "C": "", "D": "here"}
