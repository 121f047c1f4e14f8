"""What every benchmark works with: a trained cascade, the embedded broker, tiers, an echo worker and requests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.client import Client, Prepared
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

    def client(self, cascade: str) -> Client:
        """A client that asks a cascade's edge, or the echo worker in its place."""
        return Client(self.brokers, topics.requests(cascade, "edge"), topics.answers(cascade, "device"))

    def requests(self, count: int) -> list[Prepared]:
        """Requests as a device sends them, over and over the samples that the edge is not quite sure of."""
        samples, stamp = self._unsure_samples(), Stamper("/branchy/bench")
        out = []
        for number in range(count):
            payload = {self.bundle.spec.stages[0].inputs[0].tensor: samples[number % len(samples)]}
            budget_ms, trace = wire.DEFAULT_BUDGET_MS, new_traceparent()
            request = Request(uuid7(), self.bundle.digest, "edge", budget_ms, payload, trace)
            out.append(Prepared(*wire.encode_request(request, stamp())))
        return out

    def _unsure_samples(self) -> Array:
        edge = self.bundle.spec.stage("edge")
        test = datasets.load(self.bundle.manifest.training.dataset).test
        samples, _ = test.read(np.arange(len(test)))
        engine = open_engine(edge, self.bundle.file(edge, "litert"), "litert", 1)
        settings = edge.exit_settings("litert")
        if settings is None or edge.logits is None:
            raise RuntimeError("the benchmark needs a cascade whose edge has an exit")
        verdicts = judge(engine.run(samples)[edge.logits.name], settings)
        engine.close()
        return samples[[verdict.confidence < UNSURE_BELOW for verdict in verdicts]]
