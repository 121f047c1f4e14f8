"""What goes wrong, while requests come: each fault as a script, and what it promises about their answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from branchy.transport.kafka.config import CLASSIC_GROUP
from chaos.traffic import Seen
from chaos.world import NODES, REPLICAS, World

REPLICA_WINDOW_S = CLASSIC_GROUP["session.timeout.ms"] / 1e3 + 3.0
"""After a first tier's replica died without a word: its session ends, and another takes its partitions."""
HANDOVER_WINDOW_S = 3.0
"""Before and after a replica of the first tier leaves or joins: partitions change hands."""
BROKER_WINDOW_S = 8.0
"""After a broker died, for partitions that it led: its session ends, others lead them, and all clients find out."""
COPY_WINDOW_S = 6.0
"""The same for partitions that it had a copy of and others lead: until its session ends, after a new controller's
election if need be, they wait for that copy, and nobody reads what not all copies in sync have."""
RETURN_WINDOW_S = 30.0
"""After a broker that died starts again, for partitions that it has a copy of. Its copies are in sync 9 to 20 s later,
on two cores that all share, and then what is sent waits for them too, while its Java is as slow as when it was new."""
CLOSE_WINDOW_S = 5.0
"""After a link is back: what was lost before may open a breaker a deadline later, clients connect again, and the next
probe closes it (every 2 s unless told)."""
BACK_TIMEOUT_S = 150.0
"""A node that was killed looks through its data before it is back, which takes long on a busy machine."""
WARM_UP_S = 15.0
"""Until Java has compiled what it runs most."""
PATIENCE_S = 30.0
"""So long something that has to happen is waited for; whether it came in time is judged afterwards."""
BEFORE_S = 2.0
OPEN_S = 4.0
"""An open breaker is watched so long: two probes."""
SETTLE_S = 2.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which some answers may come late, or be refusals, because something that they need is gone.

    Those are the answers to what lies on the first tier's partitions that fail over, and all answers where the
    partition that they come back in does. What a further tier's replica, or partition, had of a request excuses
    nothing: the tier behind it answers in time.

    Attributes:
        what: that is gone.
        start_s: since when, by `time.time()`.
        promised_s: how long it may last.
        unsure_s: how much earlier it may have begun.
        requests: partitions of the first tier's requests that fail over.
        answers: partitions of the device's answers that do.
    """

    what: str
    start_s: float
    promised_s: float
    unsure_s: float = 0.0
    requests: frozenset[int] = frozenset()
    answers: frozenset[int] = frozenset()

    def excuses(self, seen: Seen) -> bool:
        """Whether a request's answer ended in this time and needed what is gone."""
        if seen.place is None or not self.start_s - self.unsure_s <= seen.ended_s <= self.start_s + self.promised_s:
            return False
        return seen.place.request in self.requests or seen.place.answer in self.answers


@dataclass
class Act:
    """One fault at work.

    Attributes:
        world: what it is done to.
        random: where its choices come from.
        windows: fail-overs that it brought about.
        spoilt_s: when a link was spoilt, and
        healed_s: when it was well again, by `time.time()`.
        did: what was done, for the table.
    """

    world: World
    random: random.Random
    windows: list[Window] = field(default_factory=list)
    spoilt_s: float | None = None
    healed_s: float | None = None
    did: list[str] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        """Let requests come."""
        time.sleep(seconds)

    def wait_until(self, has_come: Callable[[], object]) -> None:
        """Let requests come until something has, or for `PATIENCE_S`."""
        until_s = time.monotonic() + PATIENCE_S
        while not has_come() and time.monotonic() < until_s:
            time.sleep(LOOK_S)

    def fails_over(self, what: str, promised_s: float, **partitions: frozenset[int]) -> Window:
        """Say that something is gone now; see `Window` for the partitions."""
        window = Window(what, time.time(), promised_s, **partitions)
        self.windows.append(window)
        return window

    def hands_over(self, what: str, at_s: float, requests: frozenset[int]) -> None:
        """Say that partitions of the first tier's requests changed hands about then."""
        self.windows.append(Window(what, at_s, HANDOVER_WINDOW_S, unsure_s=HANDOVER_WINDOW_S, requests=requests))

    def outlast(self, window: Window) -> None:
        """Go on until a window is over."""
        time.sleep(max(0.0, window.start_s + window.promised_s - time.time()))


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: in the table.
        script: does it, while requests come; all is well again when it returns.
        breaker: of the link's lower tier: what it has to do, `free` when it may do either.
        link: that is spoilt, by the tier that it leads to.
    """

    name: str
    script: Callable[[Act], None]
    breaker: Literal["opens", "stays closed", "free"] = "free"
    link: str | None = None


# --- links -----------------------------------------------------------------------------------------------------------


def _spoilt(link: str, hold_s: float, kind: str, **attributes: int) -> Callable[[Act], None]:
    """A toxic on all connections of a link for some seconds."""

    def script(act: Act) -> None:
        act.pause(BEFORE_S)
        act.spoilt_s = time.time()
        for proxy in act.world.proxies_of(link):
            act.world.proxies.spoil(proxy, kind, **attributes)
        act.pause(hold_s)
        _heal(act)

    return script


def _black_hole(link: str) -> Callable[[Act], None]:
    """What is sent over a link is lost, and nothing says so, until a breaker opens, and for some probes more."""

    def script(act: Act) -> None:
        act.pause(BEFORE_S)
        act.spoilt_s = time.time()
        for proxy in act.world.proxies_of(link):
            act.world.proxies.spoil(proxy, "timeout", timeout=0)
        act.wait_until(act.world.open_breakers)
        act.pause(OPEN_S)
        _heal(act)

    return script


def _flapping(link: str, hold_s: float) -> Callable[[Act], None]:
    """The link is cut and mended again and again."""

    def script(act: Act) -> None:
        act.pause(BEFORE_S)
        act.spoilt_s = time.time()
        cuts = 0
        while time.time() < act.spoilt_s + hold_s:
            for enabled in (False, True):
                for proxy in act.world.proxies_of(link):
                    act.world.proxies.enable(proxy, enabled)
                act.pause(act.random.uniform(0.2, 1.2))
            cuts += 1
        act.did.append(f"cut {cuts} times")
        _heal(act)

    return script


def _heal(act: Act) -> None:
    act.world.proxies.heal()
    act.healed_s = time.time()
    act.pause(SETTLE_S)
    act.wait_until(lambda: not act.world.open_breakers())


# --- tiers and brokers -----------------------------------------------------------------------------------------------


def _calm(act: Act) -> None:
    act.pause(2 * BEFORE_S)


def _kills(act: Act) -> None:
    """Of each tier one replica is killed and replaced at once."""
    tiers = list(act.world.tiers)
    act.random.shuffle(tiers)
    for tier in tiers:
        act.pause(BEFORE_S)
        kill_one(act, tier)


def kill_one(act: Act, tier: str) -> None:
    """Kill a replica of a tier, replace it, and go on until all is shared again.

    What a killed replica of a further tier had taken is answered in time by the tier behind it. Only the
    first tier's requests have to wait for another replica.
    """
    replica, is_first = act.random.choice(REPLICAS), tier == act.world.tiers[0]
    name = f"{tier}-{replica}"
    act.did.append(name)
    had = act.world.owned_by(tier, replica) if is_first else frozenset()
    gone = act.fails_over(name, REPLICA_WINDOW_S if is_first else 0.0, requests=had)
    act.world.kill(tier, replica)
    act.world.start((tier, replica))
    joined_s = time.time()
    act.outlast(gone)
    act.world.wait_shared()
    if is_first:  # what it had for whom it replaces is in the window above
        act.hands_over(f"{name} joins", joined_s, act.world.owned_by(tier, replica) - had)


def _restarts(act: Act) -> None:
    """All replicas of all tiers are told to stop and started again, one by one."""
    order = act.world.replicas()
    act.random.shuffle(order)
    for tier, replica in order:
        restart_one(act, tier, replica)
    act.pause(SETTLE_S)


def restart_one(act: Act, tier: str, replica: int) -> None:
    """Tell a replica to stop, and start it again once it has."""
    name, is_first = f"{tier}-{replica}", tier == act.world.tiers[0]
    act.did.append(name)
    if is_first:
        act.hands_over(f"{name} leaves", time.time(), act.world.owned_by(tier, replica))
    act.world.stop(tier, replica)
    act.world.start((tier, replica))
    joined_s = time.time()
    act.world.wait_shared()
    if is_first:
        act.hands_over(f"{name} joins", joined_s, act.world.owned_by(tier, replica))


def kill_broker(act: Act) -> None:
    """One broker of the three is killed, and comes back once the others have taken over.

    Each partition has a copy on each of three brokers, so all wait for a moment; those that it led for longer.
    """
    node = act.random.randint(1, NODES)
    act.did.append(f"node {node}")
    act.pause(BEFORE_S)
    led, had = act.world.partitions_at(node, act.world.first_requests)
    led_answers, had_answers = act.world.partitions_at(node, act.world.device_answers)
    act.fails_over(f"copies of node {node}", COPY_WINDOW_S, requests=had, answers=had_answers)
    gone = act.fails_over(f"node {node}", BROKER_WINDOW_S, requests=led, answers=led_answers)
    act.world.cluster.kill_node(node)
    act.outlast(gone)
    back = act.fails_over(f"node {node} starts", RETURN_WINDOW_S, requests=had, answers=had_answers)
    act.world.cluster.start_node(node)
    act.world.cluster.wait_ready(BACK_TIMEOUT_S)
    act.world.wait_in_sync()
    act.did.append(f"in sync {time.time() - back.start_s:.0f} s after its start")
    act.outlast(back)
    act.pause(SETTLE_S)


def link_faults(first: str, second: str, hold_s: float = 8.0) -> Mapping[str, Fault]:
    """By short name the faults of links.

    Args:
        first: the link to the second tier.
        second: the link to the third.
        hold_s: how long a link is spoilt; a black hole until the breaker has opened.
    """
    return {
        "latency-50": Fault(
            "link: round trip + 50 ms", _spoilt(first, hold_s, "latency", latency=25), "stays closed", first
        ),
        "latency-500": Fault(
            "link: round trip + 500 ms", _spoilt(first, hold_s, "latency", latency=250), "free", first
        ),
        "bandwidth": Fault("link: 2 kB/s a connection", _spoilt(first, hold_s, "bandwidth", rate=2), "free", first),
        "black-hole": Fault("link: black hole", _black_hole(first), "opens", first),
        "black-hole-above": Fault("link above: black hole", _black_hole(second), "opens", second),
        "resets": Fault("link: reset every second", _spoilt(first, hold_s, "reset_peer", timeout=1000), "free", first),
        "flapping": Fault("link: flapping", _flapping(first, hold_s), "free", first),
    }


WARM_UP = Fault("nothing, all just started", lambda act: act.pause(WARM_UP_S))
CALM = Fault("nothing", _calm)
REPLACEMENTS: Mapping[str, Fault] = {
    "kills": Fault("a replica a tier: SIGKILL, replaced", _kills),
    "broker": Fault("a broker of three: SIGKILL, back", kill_broker),
    "restarts": Fault("all replicas: SIGTERM, one by one", _restarts),
}
