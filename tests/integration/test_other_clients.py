"""Clients that are not branchy: the plain script of examples/, and kcat by the lines of docs/protocol.md."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_bundle as toy
from commands import Command

from branchy.core import wire
from branchy.core.messages import Answer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "plain_client.py"
CASCADE = "others"
SAMPLE = toy.samples(4, seed=9)[0]  # the toy bundle's first golden sample
WAIT_S = 60.0


@pytest.fixture(scope="module", params=["embedded_broker", "apache_kafka"])
def brokers(request, toy_bundle, tmp_path_factory) -> Iterator[str]:
    """Where the tiers of the toy bundle serve: the embedded broker, and a real Kafka."""
    folder, brokers = tmp_path_factory.mktemp("others"), request.getfixturevalue(request.param).brokers
    where = ("--bundle", toy_bundle.path, "--cascade", CASCADE, "--back", brokers)
    if request.param == "apache_kafka":  # the other makes its topics itself
        with Command(folder, "topics", "create", *where) as create:
            assert create.process.wait(WAIT_S) == 0, create.log()

    def serve(tier: str) -> Command:
        return Command(folder, "serve", "--tier", tier, *where, "--ready-file", folder / f"{tier}.ready")

    with serve("edge") as edge, serve("hall,cloud") as rest:
        edge.wait_for(folder / "edge.ready")
        rest.wait_for(folder / "hall,cloud.ready")
        yield brokers


def read(body: str) -> Answer:
    """An answer, held to the rules by branchy's own decoder."""
    return wire.decode_answer([("ce_type", b"branchy.answer")], body.encode())


def check(answer: Answer, digest: str) -> None:
    """It is the cascade's answer to SAMPLE."""
    logits = {"edge": toy.edge_logits, "cloud": toy.cloud_logits}[answer.exit or ""](SAMPLE[None])
    assert (answer.status, answer.model) == ("ok", digest)
    assert answer.reason in ("confident", "final")
    assert answer.label == toy.LABELS[logits.argmax()]


def run_script(bundle: Path, *flags: str, cascade: str = CASCADE) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPT), str(bundle), "--cascade", cascade, *flags]
    return subprocess.run(line, capture_output=True, text=True, timeout=WAIT_S)


def test_the_plain_script_needs_nothing_but_a_kafka_client_and_safetensors():
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others <= {"confluent_kafka", "numpy", "safetensors"}


def test_the_plain_script_is_answered_for_safetensors_and_for_json(brokers, toy_bundle):
    done = run_script(toy_bundle.path, "--brokers", brokers, "--deadline-ms", "20000")
    assert done.returncode == 0, done.stderr
    first, second = map(read, done.stdout.splitlines())
    assert first.request != second.request
    for answer in (first, second):
        check(answer, toy_bundle.digest)
    np.testing.assert_allclose(first.probabilities, second.probabilities)


def test_the_plain_script_says_in_one_line_that_nobody_answers(embedded_broker, toy_bundle):
    flags = ("--brokers", embedded_broker.brokers, "--deadline-ms", "50")
    done = run_script(toy_bundle.path, *flags, cascade="nobody")
    assert (done.returncode, done.stdout) == (1, "")
    told = "no answer within 1.05 s; does a tier serve branchy.nobody.edge.requests, on these brokers?"
    assert done.stderr.splitlines() == [told]


@pytest.mark.parametrize(
    ("bundle", "brokers", "told"),
    [("nowhere", "127.0.0.1:1", "No such file or directory: 'nowhere/manifest.json'"), (None, "no port", "Kafka at")],
)
def test_the_plain_script_says_in_one_line_what_is_wrong(toy_bundle, bundle, brokers, told):
    done = run_script(Path(bundle or toy_bundle.path), "--brokers", brokers)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def kcat() -> None:
    """Debian's kcat. Without it: a failure on CI, elsewhere a skip that says why."""
    if shutil.which("kcat") is None:
        told = "kcat is not installed; install it with: apt-get install kcat"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)


def kcat_lines() -> str:
    """What docs/protocol.md tells a person to type, without the line that says where."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").split("## By hand, with kcat\n")[1]
    (block,) = re.findall(r"^```sh\n(.*?)^```", text.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    where, _, rest = block.partition("\n")
    assert where.startswith("brokers=")
    return rest


@pytest.mark.usefixtures("kcat")
def test_the_kcat_lines_of_the_protocol_send_a_request_and_read_its_answer(brokers, toy_bundle, tmp_path):
    (tmp_path / "sample.json").write_text(json.dumps({"sample": SAMPLE.tolist()}), encoding="utf-8")
    environment = {**os.environ, "brokers": brokers, "cascade": CASCADE, "tier": "edge"}
    line = ["sh", "-euc", kcat_lines()]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    headers, body = done.stdout.splitlines()
    assert {"kafka_correlationId=by-hand-1", "ce_type=branchy.answer"} <= set(headers.split(","))
    check(read(body), toy_bundle.digest)
