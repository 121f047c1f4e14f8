"""Spoils a running cascade in every way there is, in rounds, and says what was lost.

python -m chaos.run [REQUESTS] [--seed N] [--rate N]
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from go_programs import TOXIPROXY

from branchy.brokers.apache_kafka import JAVA_OPTIONS
from branchy.brokers.kafka_home import find_kafka
from branchy.errors import BranchyError
from branchy.runner.processes import Interrupts, Processes, branchy
from branchy.store.bundle import Bundle
from chaos.faults import CALM, REPLACEMENTS, WARM_UP, Act, Fault, link_faults
from chaos.resources import Watched, left_pending
from chaos.traffic import Traffic
from chaos.verdict import Verdict, judge, table
from chaos.world import LOOK_S, World

SETTLED_TIMEOUT_S = 15.0
TRAINING = ("--epochs", "4", "--target-share", "60,25,15", "--uplink-dtype", "uint8")


def play(world: World, traffic: Traffic, fault: Fault, choices: random.Random, *, timed: bool) -> Verdict:
    """One fault, while requests come; see `judge`.

    Raises:
        BranchyError: a tier ended by itself, or does not come back.
    """
    print(f"{fault.name}: ", end="", flush=True)
    act = Act(world, choices)
    counted = traffic.counters
    seen = traffic.during(lambda: fault.script(act))
    world.check_alive()
    changes, counters = world.breaker_changes(), traffic.counters - counted
    verdict = judge(fault, act, seen, counters, changes, deadline_s=traffic.deadline_s, timed=timed)
    verdict.broken += left_pending(world.pending)
    return verdict


def play_round(world: World, traffic: Traffic, watched: Watched, choices: random.Random) -> Iterator[Verdict]:
    """Every fault once; those of links first, as what they leave behind is seen in tiers that live on."""
    yield play(world, traffic, CALM, choices, timed=True)
    to_second, to_third = world.links
    of_links = _shuffled(list(link_faults(to_second, to_third).values()), choices)
    for fault in [*of_links, *_shuffled(list(REPLACEMENTS.values()), choices)]:
        watched.look(world.pids())
        verdict = play(world, traffic, fault, choices, timed=True)
        verdict.broken += [f"since the start: {leak}" for leak in watched.leaks(world.pids())]
        yield verdict


def leftovers(world: World) -> Iterator[str]:
    """What the brokers still hold that nobody asks for, once the tiers had the time to settle; a line each."""
    until_s = time.monotonic() + SETTLED_TIMEOUT_S
    while any(map(world.uncommitted, world.tiers)) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    for tier in world.tiers:
        if left := world.uncommitted(tier):
            yield f"{left} requests of {tier} are not settled"
    if dead := world.dead_letters():
        yield f"{dead} messages are in the dead letters"


def main() -> int:
    """Rounds of faults until so many requests were asked; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(
        prog="chaos", description="Spoil a cascade on a real Kafka, and count what is lost."
    )
    parser.add_argument("requests", type=int, nargs="?", default=10_000, help="whole rounds until so many are asked")
    parser.add_argument("--seed", type=int, default=1, help="of the order, and of who is hit")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="branchy-chaos-"))
    logging.basicConfig(filename=folder / "device.log", level=logging.INFO, format="%(asctime)s %(message)s")
    verdicts: list[Verdict] = []
    started_s = time.monotonic()
    try:
        broken = _run(folder, flags.requests, flags.seed, flags.rate, verdicts)
    except BranchyError as error:
        broken = [str(error)]
    except KeyboardInterrupt:
        broken = ["interrupted"]
    except Exception as error:  # noqa: BLE001 - whatever it is, what was seen before is told, and that it ended so
        (folder / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
        broken = [f"{type(error).__name__}: {error} (error.log)"]
    asked, took_s = sum(verdict.asked for verdict in verdicts), time.monotonic() - started_s
    print(f"\nseed {flags.seed}: {asked} requests at {flags.rate:g} a second in {took_s:.0f} s")
    print("\n".join([table(verdicts), *(f"BROKEN: {text}" for text in broken)]))
    if broken or any(verdict.broken for verdict in verdicts):
        print(f"promises were broken; logs are in {folder}")
        return 1
    print("every promise was kept")
    shutil.rmtree(folder)
    return 0


def _run(folder: Path, requests: int, seed: int, rate: float, verdicts: list[Verdict]) -> list[str]:
    """Fill in the verdicts; returns what is wrong at the end, a line each."""
    home, toxiproxy = find_kafka(os.environ, print), TOXIPROXY.find(os.environ, print)
    bundle = _train(folder)
    choices = random.Random(seed)
    with ExitStack() as stack:
        processes = stack.enter_context(Processes(stack.enter_context(Interrupts()), folder))
        world = stack.enter_context(World(folder, home, toxiproxy, bundle, processes, JAVA_OPTIONS))
        traffic = stack.enter_context(Traffic(bundle, world.cluster.brokers, rate))
        verdicts.append(play(world, traffic, WARM_UP, choices, timed=False))  # Java compiles as it goes
        watched, rounds = Watched(), 0
        while not rounds or sum(verdict.asked for verdict in verdicts) < requests:
            rounds += 1
            for verdict in play_round(world, traffic, watched, choices):
                print(f"{verdict.asked} asked, {verdict.lost} lost", flush=True)
                verdicts.append(verdict)
        left = list(leftovers(world))
        for tier, replica in world.replicas():
            world.stop(tier, replica)
    return left


def _train(folder: Path) -> Bundle:
    out = folder / "digits"
    print("training the digits", flush=True)
    done = subprocess.run(
        branchy("train", "digits", "--out", out, *TRAINING), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BranchyError(f"the training failed: {done.stderr.strip()[-300:]}")
    return Bundle.load(out)


def _shuffled(faults: list[Fault], choices: random.Random) -> list[Fault]:
    choices.shuffle(faults)
    return faults


if __name__ == "__main__":
    sys.exit(main())
