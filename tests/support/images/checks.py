"""What is held against an image: each check returns nothing when it is met, and else says what is wrong."""

from __future__ import annotations

import csv
import os
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import branchy
from branchy.brokers.embedded import start_embedded
from branchy.brokers.kafka_config import HOST, free_ports
from images.building import Image
from images.chroot import Inside, run_inside

EDGE_BYTES = 300_000_000
"""How much an edge's image may add to its base."""

LABELS = ("title", "description", "version", "revision", "licenses")
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
TRAINING = ("--epochs", "4", "--target-share", "60,25,15", "--uplink-dtype", "uint8")

Check = Callable[[Image], str | None]


def says_its_version(image: Image) -> str | None:
    """The program starts, and is the one that was built."""
    code, said = run_inside(image, "branchy", "--version")
    return None if code == 0 and branchy.__version__ in said else f"branchy --version: exit code {code}: {said[-200:]}"


def has_its_entry_point(image: Image) -> str | None:
    """What it starts is there and takes flags."""
    code, said = run_inside(image, *image.config["Entrypoint"], "--help")
    return None if code == 0 and said.startswith("Usage:") else f"its entry point: exit code {code}: {said[-200:]}"


def user_may_write_nothing(image: Image) -> str | None:
    """It runs as no root, and nothing of what it brings belongs to its user or may be written by all."""
    user, group = (int(each) for each in image.config["User"].split(":"))
    if min(user, group) <= 0:
        return f"expected a user that is not root, got {image.config['User']}"
    for top in ("opt/branchy", "bundle"):
        for folder, folders, files in os.walk(image.root / top):
            for path in (Path(folder, name) for name in (*folders, *files)):
                found = path.lstat()
                open_to_all = not path.is_symlink() and found.st_mode & stat.S_IWOTH
                if found.st_uid == user or found.st_gid == group or open_to_all:
                    return f"its user may write /{path.relative_to(image.root)}"
    return None


def file_system_is_read_only(image: Image) -> str | None:
    """The checks mean it when they say that it runs on a read-only root file system."""
    code, said = run_inside(image, "python3", "-c", "open('/tmp/x', 'w')")
    return None if code == 1 and "Read-only file system" in said else f"/tmp could be written: {said[-200:]}"


def has_labels(image: Image) -> str | None:
    """The labels of the Open Container Initiative, none empty and none with its default."""
    labels = image.config["Labels"]
    wrong = [name for name in LABELS if labels.get(f"org.opencontainers.image.{name}") in (None, "", "unknown")]
    return f"labels missing or empty: {', '.join(wrong)}" if wrong else None


def is_small(image: Image) -> str | None:
    """The limit of an edge's."""
    over = image.over_base_bytes
    return (
        None if over <= EDGE_BYTES else f"expected at most {EDGE_BYTES / 1e6:g} MB over the base, got {over / 1e6:.0f}"
    )


def has_no_tensorflow(image: Image) -> str | None:
    """No package of it or of Keras is anywhere in the image; safetensors has a module of that name."""
    named = (path for name in ("tensorflow*", "keras*") for path in image.root.rglob(name))
    found = next((path for path in named if path.is_dir()), None)
    return None if found is None else f"it holds /{found.relative_to(image.root)}"


def knows_its_bundle(image: Image) -> str | None:
    """Every file of it is whole, as seen by the image's user."""
    code, said = run_inside(image, "branchy", "inspect", "/bundle")
    return None if code == 0 else f"branchy inspect: {said[-200:]}"


def trains(scratch: Path) -> Check:
    """It trains a bundle into `scratch`, as /tmp/digits."""

    def check(image: Image) -> str | None:
        code, said = run_inside(image, "branchy", "train", "digits", "--out", "/tmp/digits", *TRAINING, scratch=scratch)
        return None if code == 0 else f"branchy train: {said[-200:]}"

    return check


def answer(tiers: Sequence[Image], device: Image, scratch: Path) -> str | None:
    """The images' tiers are ready by their own health checks, answer a device, and end well when told to.

    Args:
        tiers: their images; each runs what it runs by itself.
        device: the image of training, in which a device runs.
        scratch: the device's /tmp, with the bundle `digits`.
    """
    with ExitStack() as stack:
        brokers = {"BRANCHY_BACK_BROKERS": stack.enter_context(start_embedded()).brokers}
        running = []
        for image, port in zip(tiers, free_ports(len(tiers)), strict=True):
            variables = brokers | {"BRANCHY_HEALTH_PORT": str(port), "BRANCHY_HEALTH_HOST": HOST}
            process = Inside(image, *image.config["Entrypoint"], variables=variables)
            running.append((image, stack.enter_context(process), variables))
        wrong = next(filter(None, (_ready(*each) for each in running)), None)
        wrong = wrong or _asked(device, brokers, scratch)
        return wrong or next(filter(None, (_stopped(image, process) for image, process, _ in running)), None)


def _ready(image: Image, process: Inside, variables: dict[str, str]) -> str | None:
    until, said = time.monotonic() + READY_TIMEOUT_S, ""
    while process.running and time.monotonic() < until:
        code, said = run_inside(image, "branchy", "health", "--ready", variables=variables)
        if code == 0:
            health = image.config.get("Healthcheck", {}).get("Test", [])
            if health[:1] != ["CMD"]:
                return f"{image.name} has no health check that needs no shell: {health}"
            code, said = run_inside(image, *health[1:], variables=variables)
            return None if code == 0 else f"{image.name}'s health check: {said.strip()}"
    return f"{image.name} did not get ready: {said.strip() if process.running else process.wait()[1][-300:]}"


def _asked(device: Image, brokers: dict[str, str], scratch: Path) -> str | None:
    words = ("device", "digits", "--bundle", "/tmp/digits", "--window", "16", "--csv", "/tmp/answers.csv")
    (scratch / "answers.csv").unlink(missing_ok=True)
    code, said = run_inside(device, "branchy", *words, variables=brokers, scratch=scratch)
    if code != 0:
        return f"the device got no label for each of its requests: {said[-300:]}"
    with (scratch / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    reasons = {row["Reason"] for row in rows}
    return None if reasons == {"confident", "final"} else f"expected answers of early and last exits, got {reasons}"


def _stopped(image: Image, process: Inside) -> str | None:
    process.terminate()
    try:
        code, said = process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"{image.name} went on after SIGTERM"
    return None if code == 0 else f"{image.name} ended with {code} after SIGTERM: {said[-300:]}"
