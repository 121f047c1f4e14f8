"""Tiers of the toy bundle as processes of their own, and a client that asks them."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import toy_bundle as toy
from client import Client
from commands import Command

from branchy.config import LinkSettings
from branchy.core.policies import probabilities
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink

names = itertools.count()


class Stand:
    """Tiers of the toy bundle in processes, a client, and a cascade name of its own."""

    def __init__(self, folder: Path, brokers: str, bundle: Bundle, stack: ExitStack) -> None:
        self.folder, self.brokers, self.bundle, self.stack = folder, brokers, bundle, stack
        self.cascade = f"serve{next(names)}"
        link = KafkaLink(LinkSettings(brokers=brokers), "client")
        self.client = Client(link, self.cascade, ("edge", "hall"), bundle.digest)
        stack.callback(self.client.close)

    def serve(self, tier: str, *flags: object, ready: bool = True) -> Command:
        ready_file = self.folder / f"{tier}-{next(names)}.ready"
        where = ("--cascade", self.cascade, "--back", self.brokers, "--ready-file", ready_file)
        command = Command(self.folder, "serve", "--bundle", self.bundle.path, "--tier", tier, *where, *flags)
        self.stack.enter_context(command)
        if ready:
            command.wait_for(ready_file)
        return command


def one_sample(sure: bool) -> np.ndarray:
    """A sample that the edge's exit is, or is not, sure of."""
    samples = toy.samples(100)
    confidence = probabilities(toy.edge_logits(samples), 2.0).max(axis=-1)
    return samples[confidence.argmax() if sure else confidence.argmin()]
