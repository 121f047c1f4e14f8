"""The demo: train, serve, ask, compare with the full model, kill the cloud, bring it back; all on this machine."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from branchy import datasets
from branchy.brokers.embedded import start_embedded
from branchy.core.cascade import FULL
from branchy.datasets.dataset import Part
from branchy.datasets.named import DIGITS, NAMES
from branchy.errors import TrainingError, UsageError
from branchy.reports.csv import CsvReport
from branchy.reports.folder import make_folder
from branchy.runner import demo_text as text
from branchy.runner.demo_passes import Say, ask_all, ask_through_outage, gentle_rate
from branchy.runner.held_out import load_held_out
from branchy.runner.processes import Interrupts, Processes, branchy
from branchy.runner.stand import Stand, tier_stages
from branchy.store.bundle import Bundle

TIERS = ("edge", "fog", "cloud")
"""What the demo trains; a bundle that is given may have others."""

TARGET_SHARE = "60,25,15"
"""Per cent that shall leave at each exit: at a threshold of 0.8 nearly all digits leave at the edge."""


MOST_EPOCHS = 20
SAMPLES_SEEN = 200_000
"""Of the training, over all epochs, unless told: enough for a demo, not for a paper."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What a demo does.

    Attributes:
        dataset: its name or path; None is what the bundle was trained on, or the digits to train on.
        bundle: a trained cascade to use; None trains one.
        csv: results of the first pass; the other passes' files are named after it.
        folder: for the bundle that is trained and the processes' logs.
        samples: most test samples to send in a pass.
        seed: of the training.
        epochs: of the training; None takes as many as are over within a minute or so.
    """

    dataset: str | None = None
    bundle: Path | None = None
    csv: Path = Path("results.csv")
    folder: Path = Path("runs/demo")
    samples: int = 2000
    seed: int = 0
    epochs: int | None = None


def run(settings: DemoSettings, say: Say) -> bool:
    """Run the demo.

    Args:
        settings: what to do.
        say: takes each line for the user.

    Returns:
        Whether in every pass the ids sent equal the ids answered, and the cloud was missed and came back.

    Raises:
        UsageError: the data set is not there or does not fit the bundle, a file or the folder cannot be written, or
            the bundle has a single tier.
        BranchyError: a step failed; no process is left.
    """
    given = Bundle.load(settings.bundle) if settings.bundle else None
    tiers = tuple(tier_stages(given.spec)) if given else TIERS
    if len(tiers) < 2:
        raise UsageError(f"the demo kills the last tier and asks the others: expected two or more, got {tiers[0]}")
    dataset = settings.dataset or (_trained_on(given) if given else DIGITS)
    data = load_held_out(dataset, given.spec) if given else datasets.load(dataset, test_only=True)
    test = data.test.take(np.arange(min(settings.samples, len(data.test))))
    with ExitStack() as stack:
        reports = _open_reports(settings.csv, tiers, stack)
        make_folder(settings.folder, "logs")
        interrupts = stack.enter_context(Interrupts())
        with interrupts.held():
            broker = stack.enter_context(start_embedded())
        processes = stack.enter_context(Processes(interrupts, settings.folder))
        bundle = given or _train(dataset, settings, len(data.pool), processes, say)
        stand = Stand(bundle, broker.brokers, processes, settings.folder)
        say(text.starting(broker.brokers, tiers, settings.folder))
        _start(stand, *tiers)
        return show(stand, test, reports, say)


@dataclass(frozen=True, slots=True)
class Reports:
    """The results files of the three passes."""

    cascade: CsvReport
    full: CsvReport
    outage: CsvReport


def _open_reports(csv: Path, tiers: tuple[str, ...], stack: ExitStack) -> Reports:
    """Before the work, so that a path that cannot be written is found out."""
    full, outage = (csv.with_stem(f"{csv.stem}-{name}") for name in ("full", "outage"))
    files = ((csv, tiers), (full, (FULL,)), (outage, tiers))
    return Reports(*(stack.enter_context(CsvReport(path, names)) for path, names in files))


def _trained_on(bundle: Bundle) -> str:
    """The name of a bundle's own data set."""
    name = bundle.manifest.training.dataset
    if name not in NAMES:
        raise UsageError(
            f"bundle {bundle.path} was trained on '{name}', which is none of {', '.join(NAMES)}: say where it is, as "
            "branchy demo DATASET"
        )
    return name


def _train(dataset: str, settings: DemoSettings, samples: int, processes: Processes, say: Say) -> Bundle:
    """Train in a process of its own, so that this one stays without TensorFlow, as a device is."""
    target = settings.folder / "bundle"
    command = branchy("train", dataset, "--out", target, "--overwrite", "--tiers", ",".join(TIERS))
    command += ["--target-share", TARGET_SHARE, "--uplink-dtype", "uint8", "--seed", str(settings.seed)]
    command += ["--epochs", str(settings.epochs or min(MOST_EPOCHS, max(2, SAMPLES_SEEN // samples)))]
    say(text.training(dataset, TARGET_SHARE))
    child = processes.start("train", command, is_quiet=False, stop_signal=signal.SIGINT)
    if processes.wait(child) != 0:
        raise TrainingError("the training failed; its own message is above")
    return Bundle.load(target)


def _start(stand: Stand, *tiers: str) -> None:
    stand.start(*tiers)
    with tqdm(total=len(tiers), desc="tiers ready", unit="tier") as bar:
        stand.wait_ready(*tiers, on_ready=bar.update)


def show(stand: Stand, test: Part, reports: Reports, say: Say) -> bool:
    """The passes, one after the other; the full model's tier runs during its own only.

    Returns:
        See `run`.
    """
    say(text.asking(len(test), stand.tiers[0]))
    cascade = ask_all(stand, stand.tiers[0], test, reports.cascade)
    _start(stand, FULL)
    full = ask_all(stand, FULL, test, reports.full)
    stand.stop(FULL)
    say(text.comparison(cascade.rows, full.rows, stand.bundle.spec))
    say(text.files(reports.cascade.path, reports.full.path))
    outage, during = ask_through_outage(stand, test, gentle_rate(cascade), reports.outage, say)
    say(text.files(reports.outage.path))
    passes = {"cascade": cascade, "full model": full, "second pass": during}
    for name, one in passes.items():
        say(text.ids(name, one.handed, one.sent, one.answered))
    return outage.is_over and all(one.is_complete for one in passes.values())
