"""What every benchmark works with: a trained cascade, the embedded broker, tiers, an echo worker and requests."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.client import SURE, Client, Kind, Prepared
from benchmarks.echo import write_answer
from branchy import datasets
from branchy.core import topics, wire
from branchy.core.cascade import Array
from branchy.core.messages import Request
from branchy.core.policies import judge
from branchy.engines import open_engine
from branchy.runner.events import Stamper, new_traceparent, uuid7
from branchy.runner.processes import Child, Processes, branchy
from branchy.store.bundle import Bundle

READY_TIMEOUT_S = 60.0
UNSURE_BELOW = 0.99
"""Confidence of the samples that are sent: at a threshold of 1 the edge keeps none of them."""


@dataclass
class Bench:
    """The table that everything is put on.

    Attributes:
        bundle: what the tiers run.
        brokers: `HOST:PORT` of the embedded broker.
        processes: owns everything that is started.
        folder: for logs and ready files.
    """

    bundle: Bundle
    brokers: str
    processes: Processes
    folder: Path

    def tier(self, tier: str, cascade: str, *flags: str) -> Child:
        """Start a tier and wait until it is ready."""
        ready = self.folder / f"{cascade}-{tier}.ready"
        command = branchy("serve", "--bundle", self.bundle.path, "--tier", tier, "--cascade", cascade)
        command += ["--back", self.brokers, "--ready-file", str(ready), *flags]
        child = self.processes.start(f"{cascade}-{tier}", command)
        self.processes.wait_for_file(child, ready, READY_TIMEOUT_S)
        return child

    def echo(self, cascade: str, answer: Prepared) -> Child:
        """Start an echo worker that gives this answer, in place of a cascade's edge."""
        file, ready = self.folder / f"{cascade}.answer", self.folder / f"{cascade}.ready"
        write_answer(answer, file)
        line = [sys.executable, "-m", "benchmarks.echo", self.brokers, topics.requests(cascade, "edge")]
        child = self.processes.start(cascade, [*line, str(file), str(ready)])
        self.processes.wait_for_file(child, ready, READY_TIMEOUT_S)
        return child

    def client(self, cascade: str, tier: str = "edge", kind: Kind = SURE) -> Client:
        """A client that asks a tier of a cascade, or the echo worker in its place, for answers of a kind."""
        return Client(self.brokers, topics.requests(cascade, tier), topics.answers(cascade, "device"), kind)

    def requests(self, count: int, tier: str = "edge", budget_ms: float = wire.DEFAULT_BUDGET_MS) -> list[Prepared]:
        """Requests as a device sends them to the edge, or the edge to the fog, over and over the same samples."""
        stamp, uplink = Stamper("/branchy/bench"), self.bundle.spec.stage("edge").uplink
        payloads, dtype = self._samples, None
        if tier == "fog" and uplink is not None:
            payloads, dtype = self._activations, uplink.dtype
        tensor = self.bundle.spec.stage(tier).inputs[0].tensor
        out = []
        for number in range(count):
            payload = {tensor: payloads[number % len(payloads)]}
            request = Request(uuid7(), self.bundle.digest, tier, budget_ms, payload, new_traceparent())
            out.append(Prepared(*wire.encode_request(request, stamp(), dtype)))
        return out

    @cached_property
    def _samples(self) -> Array:
        """Test samples that the edge is not quite sure of."""
        test = datasets.load(self.bundle.manifest.training.dataset).test
        samples, _ = test.read(np.arange(len(test)))
        outputs, settings = self._edge(samples), self.bundle.spec.stage("edge").exit_settings("litert")
        if settings is None:
            raise RuntimeError("the benchmark needs a cascade whose edge has an exit")
        return samples[[verdict.confidence < UNSURE_BELOW for verdict in judge(outputs["logits"], settings)]]

    @cached_property
    def _activations(self) -> Array:
        return self._edge(self._samples)["activation"]

    def _edge(self, samples: Array) -> Mapping[str, Array]:
        """The edge's outputs, by what they are rather than by their tensors' names."""
        edge = self.bundle.spec.stage("edge")
        if edge.logits is None or edge.activation is None:
            raise RuntimeError("the benchmark needs an edge with an exit and a stage after it")
        engine = open_engine(edge, self.bundle.file(edge, "litert"), "litert", 1)
        outputs = engine.run(samples)
        engine.close()
        return {"logits": outputs[edge.logits.name], "activation": outputs[edge.activation.name]}
