"""An int8 edge and a float cloud, trained and served."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from client import Client
from commands import Command

from branchy.config import LinkSettings
from branchy.datasets import load
from branchy.runner.cascade import Cascade
from branchy.runner.training import TrainOptions, train
from branchy.runner.training_summary import Summary, summary_lines
from branchy.runner.tuning import TuneOptions, tune
from branchy.transport.kafka import KafkaLink

pytestmark = pytest.mark.slow

FORMATS = ("litert", "litert-float16", "litert-int8", "keras")
ARCH = f"{Path(__file__).parent.parent}/support/own_arch.py:build"
AT_THE_PORTS = {"CAST", "QUANTIZE", "DEQUANTIZE"}
"""Operators between the floats and bytes that a stage takes and gives, and the integers it computes in."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    out = tmp_path_factory.mktemp("formats") / "b"
    return train(TrainOptions("digits", out=out, arch=ARCH, epochs=1, formats=FORMATS, thresholds=1.0))


def test_each_stage_has_size_time_and_accuracy_in_each_format(trained: Summary) -> None:
    for stage in (*trained.bundle.spec.stages, trained.bundle.spec.full):
        assert tuple(stage.files) == FORMATS
        assert len({file.path for file in stage.files.values()}) == len(FORMATS)
        assert all(file.compute_ms and file.compute_ms > 0 for file in stage.files.values())
        assert all((file.exit is None) == (stage.logits is None) for file in stage.files.values())
        if stage.logits is not None:
            assert 0 < stage.files["litert-float16"].logits_off < stage.files["litert-int8"].logits_off
    assert len([line for line in summary_lines(trained) if line.split()[1:2] == ["litert-int8"]]) == 4


def _operators_on_floats(path: Path) -> set[str]:
    """Names of the operators that take or give floats; delegates, which take some operators' place, are left out."""
    bare = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=bare)
    floats = {each["index"] for each in interpreter.get_tensor_details() if each["dtype"] in (np.float32, np.float16)}
    operators = interpreter._get_ops_details()  # the package has no public way to list them
    return {each["op_name"] for each in operators if floats & {*each["inputs"], *each["outputs"]}}


def test_an_int8_stage_computes_in_integers_alone(trained: Summary) -> None:
    for stage in (*trained.bundle.spec.stages, trained.bundle.spec.full):
        assert _operators_on_floats(trained.bundle.file(stage, "litert-int8")) <= AT_THE_PORTS, stage.name
        assert _operators_on_floats(trained.bundle.file(stage, "litert")) - AT_THE_PORTS, "of floats it tells as well"


def test_an_int8_edge_and_a_float_cloud_answer_together_and_outside_a_certificate_of_float32(
    trained: Summary, embedded_broker: Any, tmp_path: Path
) -> None:
    data = load("digits")
    bundle = tune(trained.bundle, data, TuneOptions(out=tmp_path / "tuned", thresholds=1.0, alpha=0.9)).bundle
    samples, _ = data.test.read(np.arange(8))
    assert all(answer.certified for answer in Cascade(bundle).predict(samples))
    with ExitStack() as stack:
        link = KafkaLink(LinkSettings(brokers=embedded_broker.brokers), "c")
        client = Client(link, "fmt", ("camera", "box"), bundle.digest)
        stack.callback(client.close)
        for tier, fmt in (("camera", "litert-int8"), ("box,hall", "litert")):
            ready = tmp_path / f"{tier}.ready"
            where = ("--cascade", "fmt", "--back", embedded_broker.brokers, "--ready-file", ready)
            flags = ("--bundle", bundle.path, "--tier", tier, *where, "--format", fmt)
            stack.enter_context(Command(tmp_path, "serve", *flags)).wait_for(ready)
        asked = [client.ask(sample, to="camera") for sample in samples]
        answers = client.answers(len(asked))
    together = Cascade(trained.bundle, stage="hall").predict(samples)
    assert [len(answers[i].hops) for i in asked] == [2] * len(asked)
    assert not any(answers[i].certified for i in asked)
    floats = np.stack([answer.probabilities for answer in together])
    assert np.abs(np.stack([answers[i].probabilities for i in asked]) - floats).max() < 0.1
