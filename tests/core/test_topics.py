from __future__ import annotations

from dataclasses import replace

from fake_tier import spec

from branchy.core import topics
from branchy.core.cascade import TensorSpec, Uplink


def test_a_cascade_has_queues_and_dead_letters_a_stage_and_answers_for_each_requester():
    names = set(topics.all_topics(spec(), "toy"))
    assert names == {
        *(f"branchy.toy.{tier}.{kind}" for tier in ("edge", "cloud", "full") for kind in ("requests", "dead")),
        "branchy.toy.device.answers",
        "branchy.toy.edge.answers",
    }


def test_a_queue_takes_what_the_stage_behind_sends_and_so_do_its_dead_letters():
    cascade = spec()
    edge = replace(
        cascade.stages[0], activation=TensorSpec("activation", (1000,)), uplink=Uplink("activation", "float16")
    )
    sizes = topics.all_topics(replace(cascade, stages=(edge, cascade.stages[1])), "toy")
    assert sizes["branchy.toy.cloud.requests"] == sizes["branchy.toy.cloud.dead"] == 2000
    assert sizes["branchy.toy.edge.answers"] == 0


def test_a_first_queue_takes_a_sample_as_float32_or_as_json():
    cascade = spec()
    first = replace(cascade.stages[0], input=TensorSpec("sample", (100, 100, 3), "uint8"))
    sizes = topics.all_topics(
        replace(cascade, stages=(first, cascade.stages[1]), full=replace(cascade.full, input=first.input)), "toy"
    )
    assert sizes["branchy.toy.edge.requests"] == sizes["branchy.toy.full.dead"] == len("255,") * 30_000


def test_a_queue_behind_a_cut_that_sends_the_sample_takes_a_sample_in_any_form():
    cascade = spec()
    edge, cloud = cascade.stages
    edge = replace(edge, activation=edge.input, uplink=Uplink("sample", "uint8"))
    cloud = replace(cloud, inputs=edge.inputs, input=edge.input)
    sizes = topics.all_topics(replace(cascade, stages=(edge, cloud)), "toy")
    assert sizes["branchy.toy.cloud.requests"] == sizes["branchy.toy.edge.requests"] == 4 * edge.input.values
    assert topics.request_bytes(edge) == edge.input.values
