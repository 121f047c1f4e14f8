"""`branchy serve` and `branchy device` in processes of their own, on the embedded broker."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import toy_bundle as toy
from client import Client
from commands import Command
from serving_stand import Stand, one_sample

from branchy.config import LinkSettings
from branchy.core.messages import EncodedSample
from branchy.reports.csv import read_csv
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink

pytestmark = pytest.mark.alone

HEAVY = {"tensorflow", "keras", "pandas", "kubernetes", "matplotlib", "sklearn"}


@pytest.fixture
def stand(tmp_path, embedded_broker, toy_bundle) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path, embedded_broker.brokers, toy_bundle, stack)


def test_a_tier_answers_falls_back_and_rejects_without_loading_tensorflow_or_pandas(stand):
    edge = stand.serve("edge")
    client = stand.client
    client.ask(one_sample(sure=True), to="edge")
    assert client.answer()[1].reason == "confident"
    client.ask(one_sample(sure=False), to="edge", budget_ms=300.0)
    answer = client.answer()[1]
    assert (answer.status, answer.tier, answer.reason) == ("ok", "edge", "timeout")
    client.ask(one_sample(sure=True), to="edge", model="e" * 64)
    assert (client.answer()[1].status, client.events.empty()) == ("rejected", True)
    client.put(Message([("ce_id", b"x")], b"garbage"), to="edge")
    assert client.answer()[1].status == "error"
    assert edge.stop() == 0
    assert not HEAVY & edge.modules()
    assert "answer.confident 1" in edge.log()
    assert not list(stand.folder.glob("*.ready")), "a tier that stopped says it is ready"


def test_the_whole_cascade_gives_the_full_models_answer_and_a_hop_a_tier(stand):
    stand.serve("edge")
    stand.serve("hall,cloud")
    sample = one_sample(sure=False)
    stand.client.ask(sample, to="edge")
    answer = stand.client.answer()[1]
    assert (answer.tier, answer.exit, answer.reason) == ("hall", "cloud", "final")
    assert answer.index == toy.cloud_logits(sample[None]).argmax()
    assert [hop.tier for hop in answer.hops] == ["edge", "hall"]
    assert answer.hops[0].bytes_up > 0


def test_garbage_lies_in_the_dead_letters_with_its_reason(stand):
    stand.serve("edge")
    stand.client.put(Message([("branchy-model", b"m"), ("branchy-stage", b"edge")], b"\x00garbage"), to="edge")
    assert stand.client.answer()[1].reason == "malformed"
    dead = stand.client.dead_letter("edge")
    headers = dict(dead.headers)
    assert (dead.body, headers["branchy-error-code"], headers["branchy-tier"]) == (b"\x00garbage", b"body", b"edge")


def test_the_full_model_is_a_tier_of_its_own(stand):
    link = KafkaLink(LinkSettings(brokers=stand.brokers), "client")
    client = Client(link, stand.cascade, ("full",), stand.bundle.digest)
    stand.stack.callback(client.close)
    stand.serve("full")
    sample = one_sample(sure=True)
    client.ask(sample, to="full")
    answer = client.answer()[1]
    assert (answer.tier, answer.reason, answer.index) == ("full", "final", toy.cloud_logits(sample[None]).argmax())


def test_a_png_is_decoded_by_the_first_tier(stand):
    from PIL import Image

    sample = one_sample(sure=True)
    file = io.BytesIO()
    Image.fromarray(sample[:, :, 0]).save(file, "PNG")
    stand.serve("edge")
    stand.client.ask(EncodedSample("image/png", file.getvalue()), to="edge")
    answer = stand.client.answer()[1]
    assert (answer.status, answer.index) == ("ok", toy.edge_logits(sample[None]).argmax())


def test_told_to_stop_a_tier_answers_what_waits_for_a_silent_front(stand):
    edge = stand.serve("edge")
    asked = {stand.client.ask(one_sample(sure=False), to="edge") for _ in range(10)}
    stand.client.ask(one_sample(sure=True), to="edge")  # once it is answered, those before it have gone up
    assert stand.client.answer()[1].reason == "confident"
    assert edge.stop() == 0
    answers = stand.client.answers(10)
    assert set(answers) == asked
    assert {a.reason for a in answers.values()} == {"handover"}


def test_a_tier_keeps_trying_a_broker_that_is_not_there_and_stops_when_told(stand):
    command = stand.serve("edge", "--back", "127.0.0.1:1", ready=False)
    command.wait_for_log("trying again")
    assert "127.0.0.1:1" in command.log()
    assert command.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--tier", "attic"), 2, "no stage 'attic' in this bundle; it has edge, hall, cloud, full"),
        (("--tier", "edge,cloud"), 2, "cloud does not follow edge"),
        (("--tier", "hall"), 2, "a tier must end in a stage with an exit"),
        (("--threshold", "1.5"), 2, "threshold for policy max_prob must be in 0..1, got 1.5"),
        (("--policy", "entropy", "--threshold", "9"), 2, "must be in 0..1.099"),
        (("--batch-size", "0"), 2, "setting batch_size from the command line"),
        (("--bundle", "nowhere"), 1, "nothing is there"),
    ],
)
def test_wrong_use_is_one_line_and_its_exit_code(stand, flags, code, words):
    command = stand.serve("edge", *flags, ready=False)
    assert command.process.wait(60) == code
    lines = [line for line in command.log().splitlines() if line.startswith("branchy: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in command.log()


def test_a_changed_bundle_is_not_served(stand, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(stand.bundle.path, copy)
    stage = copy / "edge.tflite"
    stage.write_bytes(stage.read_bytes()[:-1] + b"?")
    command = stand.serve("edge", "--bundle", copy, ready=False)
    assert command.process.wait(60) == 1
    assert "edge.tflite was changed after it was written" in command.log()


def test_a_device_is_answered_and_loads_neither_tensorflow_nor_pandas(stand, tmp_path):
    samples = toy.samples(40, seed=3)
    labels = toy.cloud_logits(samples).argmax(axis=-1)
    data = tmp_path / "toy.npz"
    np.savez(
        data,
        x_train=samples,
        y_train=labels,
        x_test=samples,
        y_test=labels,
        labels=toy.LABELS,
        range=np.asarray([0, 16]),
    )
    stand.serve("edge")
    stand.serve("hall,cloud")
    csv = tmp_path / "results.csv"
    where = ("--bundle", stand.bundle.path, "--cascade", stand.cascade, "--back", stand.brokers)
    with Command(tmp_path, "device", data, *where, "--window", 4, "--csv", csv) as device:
        assert device.process.wait(60) == 0, device.log()
    assert not HEAVY & device.modules()
    rows = read_csv(csv).rows
    assert len({row.request for row in rows}) == len(rows) == 40
    assert {row.tier for row in rows} == {"edge", "hall"}
