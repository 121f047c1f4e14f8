"""What the demo says: plain text made of results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from branchy.core.cascade import FULL, CascadeSpec
from branchy.core.statistics import quantile
from branchy.reports.csv import Row
from branchy.reports.summary import Summary, render
from branchy.reports.text import text_table
from branchy.runner.outage import Outage

WHY = {
    "timeout": "it waited as long as the deadline let it, then took its own exit",
    "unreachable": "its circuit breaker was open: it took its own exit at once",
}
"""Reasons of answers without the last tier, for a newcomer; other reasons are shown as they are."""


def training(data: str, target_share: str) -> str:
    """Before the training."""
    return (
        f"Training a model with three exits on {data}. Thresholds are set on held-out samples, so that about "
        f"{target_share.replace(',', '/')} % leave at edge, fog and cloud."
    )


def starting(brokers: str, tiers: Sequence[str], folder: Path) -> str:
    """Before the tiers are started."""
    return (
        f"\nThe embedded broker is at {brokers}. Starting {', '.join(tiers)}, each a process of its own; "
        f"their logs are in {folder}."
    )


def asking(samples: int, first: str) -> str:
    """Before the first pass."""
    return f"Sending {samples:,} test images that no training saw: to {first}, then to the full model in one piece."


def comparison(cascade: Sequence[Row], full: Sequence[Row], spec: CascadeSpec) -> str:
    """Cascade and full model side by side, and what the bytes can show."""
    tiers = [stage.name for stage in spec.stages]
    runs = {"cascade": Summary.of(cascade, tiers), "full model only": Summary.of(full, [FULL])}
    return f"\n{render(runs)}\n\n{_about_bytes(runs, spec)}"


def _about_bytes(runs: dict[str, Summary], spec: CascadeSpec) -> str:
    sample_bytes = spec.input.tensor.size_bytes
    ups = [run.bytes_up for run in runs.values()]
    if None in ups:
        return "Bytes sent up are not known for every request."
    cascade, full = (up or 0.0 for up in ups)
    counted = "Bytes are headers and bodies over the cuts; for the full model, all that the device sends."
    if sample_bytes < full - sample_bytes:
        return (
            f"{counted}\nA sample here is {sample_bytes} bytes and the rest of its message {full - sample_bytes:,.0f}: "
            "this cannot show that bytes are saved.\nmake demo DATA=fashion-mnist can; where the data is not there, "
            "it says how to get it."
        )
    if cascade < full:
        return f"{counted}\nThe cascade sent {full / cascade:.1f} times fewer." if cascade else counted
    return f"{counted}\nHere the cascade sent more: its activations are larger than the samples that stayed behind."


def killed(last: str, after: int, rate: float) -> str:
    """When the last tier was killed."""
    return f"\nAfter {after:,} answers {last} was killed (SIGKILL). The samples go on coming, {rate:.0f} a second."


def restarted(last: str, wanted: int) -> str:
    """When the last tier was started again."""
    return f"{wanted:,} requests wanted {last} and it was dead. Starting it again."


def outage(play: Outage, back_s: float | None) -> str:
    """Who answered for the last tier while it was dead, and whether it is back."""
    last = play.last_tier
    answered = sum(play.answered_by().values())
    lines = [
        f"\nUntil it was back {len(play.wanted):,} requests wanted {last} in vain; {answered:,} of them were answered:",
        text_table(["answered by", "reason", "requests", "p50", "p99"], _who(play), left=2),
        *(f"{reason}: {why}." for reason, why in WHY.items() if reason in _reasons(play)),
    ]
    if back_s is None:
        lines.append(f"{last} did not answer again.")
    else:
        lines.append(f"{last} answers again ({play.answers_back} final answers), {back_s:.1f} s after it was started.")
    return "\n".join(lines)


def _reasons(play: Outage) -> set[str]:
    return {reason for _, reason in play.answered_by()}


def _who(play: Outage) -> list[list[str]]:
    rows = []
    for (tier, reason), requests in sorted(play.answered_by().items()):
        took = [r.latency_s for r in play.wanted if (r.tier, r.reason) == (tier, reason) and r.latency_s is not None]
        p50, p99 = (f"{1e3 * quantile(took, q):.1f} ms" for q in (0.5, 0.99))
        rows.append([tier, reason, f"{requests:,}", p50, p99])
    return rows


def files(*paths: Path) -> str:
    """Where results are."""
    return f"Every request's line is in {' and '.join(map(str, paths))}."


def ids(name: str, handed: int, sent: Collection[str], answered: Collection[str]) -> str:
    """The count that decides how the demo ends."""
    missing, twice = len(set(sent) - set(answered)), len(answered) - len(set(answered))
    if handed == len(sent) and not missing and not twice and set(sent) == set(answered):
        return f"{name}: {len(sent):,} ids sent, the same {len(set(answered)):,} answered."
    return (
        f"{name}: {handed:,} samples, {len(sent):,} ids sent, {len(set(answered)):,} answered: "
        f"{missing:,} missing, {twice:,} answered twice."
    )
