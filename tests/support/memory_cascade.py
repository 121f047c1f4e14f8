"""A cascade of toy tiers, each in a thread, and a client that talks to it: over the memory transport, or any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from client import WAIT_S, Client
from tier_world import DIGEST, model_of, stage

from branchy.core import topics
from branchy.core.messages import EncodedSample
from branchy.core.tier_model import TierLimits
from branchy.errors import DatasetError
from branchy.runner.executor import Executor
from branchy.runner.health import Health
from branchy.runner.tier import Back, Front, Tier
from branchy.transport.base import Link, Message
from branchy.transport.memory import MemoryBroker

CASCADE = "toy"
NAMES = ("edge", "fog", "cloud")


class ToyEngine:
    """Sure when the sample's first value is this stage's ordinal or below; what else the second value says."""

    FAIL, NOT_FINITE, HOLD = 1, 2, 3

    def __init__(self, spec, ordinal: int, hold: threading.Event, started: threading.Event) -> None:
        self.stage, self.ordinal, self.hold, self.started = spec, ordinal, hold, started
        self.closed = False

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        if (batch[:, 1] == self.FAIL).any():
            raise ValueError("this model cannot")
        if (batch[:, 1] == self.HOLD).any():
            self.started.set()
            assert self.hold.wait(WAIT_S)
        logits = np.zeros((len(batch), 3), np.float32)
        logits[:, 2] = np.where(batch[:, 0] <= self.ordinal, 9.0, 0.1)
        logits[batch[:, 1] == self.NOT_FINITE] = np.nan
        return {"logits": logits, "activation": batch.astype(np.float32)}

    def close(self) -> None:
        self.closed = True


def sample(sure_at: int = 0, special: int = 0) -> np.ndarray:
    """A sample that the exit with that ordinal (edge 0, fog 1, cloud 2) is sure of."""
    return np.asarray([sure_at, special, 0, 0], np.uint8)


def no_images(encoded: EncodedSample) -> np.ndarray:
    raise DatasetError("damaged image")


@dataclass
class RunningTier:
    """A tier in a thread, with what it was given."""

    tier: Tier
    back: Back
    thread: threading.Thread
    executor: Executor
    engines: list[ToyEngine]
    stack: ExitStack

    def stop(self) -> None:
        """As SIGTERM does."""
        self.tier.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.stack.close()

    def health(self) -> Health:
        """Its health, once it has begun."""
        health = Health()
        health.loaded(CASCADE, self.tier.name, DIGEST)
        health.runs(self.tier, self.back, self.executor)
        assert self.tier.between_turns(lambda now: True, WAIT_S)
        return health

    def vanish(self) -> None:
        """As SIGKILL does, for the others: it takes, settles and answers nothing any more."""
        self.back.source.close()
        self.back.sender.send = lambda *args, **kwargs: True
        self.tier._stopping_since = -1e9  # long ago: it waits for nothing
        self.stop()


class ToyCascade(Client):
    """Tiers and a client of them, each with links of its own."""

    def __init__(self, link: Callable[[str], Link], cascade: str) -> None:
        self.open_link = link
        self.tiers: list[RunningTier] = []
        self.hold, self.computing = threading.Event(), threading.Event()
        super().__init__(link("client"), cascade, NAMES, DIGEST)

    def start(self, name: str, limits: TierLimits | None = None, replica: str = "0") -> RunningTier:
        ordinal = NAMES.index(name)
        before = NAMES[ordinal - 1] if ordinal else None
        after = NAMES[ordinal + 1] if ordinal < 2 else None
        spec = stage(name, before, after)
        tier = Tier(name, [model_of((spec,))], limits or TierLimits())
        stack = ExitStack()
        link = self.open_link("back")
        stack.callback(link.close)
        source = link.requests(topics.requests(self.cascade, name), name, tier.sink)
        stack.callback(source.close)
        sender = link.sender(tier.sink, message_timeout_s=30.0, queue_limit=1000)
        stack.callback(sender.close)
        back = Back(source, sender, link.queue(topics.dead_letters(self.cascade, name)))
        front = None
        if after:
            up = self.open_link("front")
            stack.callback(up.close)
            replies = up.replies(topics.answers(self.cascade, name), replica, tier.sink, 1.0)
            stack.callback(replies.close)
            up_sender = up.sender(tier.sink, message_timeout_s=30.0, queue_limit=1000)
            stack.callback(up_sender.close)
            front = Front(up_sender, replies, up.queue(topics.requests(self.cascade, after)))
        engine = ToyEngine(spec, ordinal, self.hold, self.computing)
        executor = Executor({(DIGEST, name): engine}, no_images, tier.sink)
        stack.callback(executor.close)
        thread = threading.Thread(target=tier.run, args=(back, front, executor), daemon=True)
        running = RunningTier(tier, back, thread, executor, [engine], stack)
        thread.start()
        self.tiers.append(running)
        return running

    def close(self) -> None:
        self.hold.set()
        for running in self.tiers:
            if running.thread.is_alive():
                running.stop()
        super().close()


class MemoryCascade(ToyCascade):
    """On brokers in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        super().__init__(self.broker.link, CASCADE)

    def dead(self, name: str) -> list[Message]:
        return self.broker.messages(topics.dead_letters(CASCADE, name))
