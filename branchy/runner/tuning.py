"""Thresholds for a bundle: as given, swept towards a target, or certified; written as a bundle of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from branchy.core.calibration import share_thresholds
from branchy.core.cascade import CascadeSpec, FormatName, PolicyName, override_exits
from branchy.core.certificate import Certificate, CertifiedThresholds, Guarantee
from branchy.core.guarantee import MOST_SAMPLES, Bound, Losses, certify, certify_expected, counted, samples_needed
from branchy.core.tuning import ExitOutputs, LossName, Thresholds, along, at, frontier, further_bound, path
from branchy.datasets import Dataset
from branchy.errors import TuningError, UsageError
from branchy.runner.held_out import check_fits
from branchy.runner.measuring import CostName, Measured, exit_costs, exits_of, measure
from branchy.runner.parts import HELD_OUT, tuning_parts
from branchy.runner.tuning_summary import Tuned
from branchy.store.bundle import Bundle
from branchy.store.writer import check_target, rewrite_bundle

DELTA = 0.05
"""Probability that a promise does not hold, unless told."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What thresholds to look for, and what to promise of them.

    Attributes:
        out: the new bundle's directory; None is the old one's with `-tuned` behind.
        overwrite: whether a bundle that is there already is replaced.
        fmt: the format whose exits are tuned.
        threads: how many threads one batch may use.
        policy: exit policy instead of the bundle's.
        thresholds: these, for every early exit or by stage; or
        target_share: per cent of the answers that shall leave at each exit; or
        target_accuracy: in per cent, the cheapest that reach it; or
        target_cost: mean cost of a sample, the most accurate that keep to it; or
        alpha: the cheapest of which can be promised that they lose at most this share; or
        certified: the bundle's own certified vector of this number, from 1, safest first (`take_certified`).
        delta: probability that the promise does not hold; None is `DELTA`.
        loss: what is not to be lost; None is `gap`.
        guarantee: `probability`, which None is too, or `expected`, which has no delta.
        bound: how a promise is tested; None takes what gets further on the tune part.
        cost: what is to be cheap.
        unseen: whether the data set is one of which nothing was trained on.
        seed: of the order of the samples, and of their division where they are unseen.
    """

    out: Path | None = None
    overwrite: bool = False
    fmt: FormatName = "litert"
    threads: int = 1
    policy: PolicyName | None = None
    thresholds: Mapping[str, float] | float | None = None
    target_share: tuple[float, ...] | None = None
    target_accuracy: float | None = None
    target_cost: float | None = None
    alpha: float | None = None
    certified: int | None = None
    delta: float | None = None
    loss: LossName | None = None
    guarantee: Guarantee | None = None
    bound: Bound | None = None
    cost: CostName = "bytes"
    unseen: bool = False
    seed: int = 0


def tune(bundle: Bundle, data: Dataset, options: TuneOptions) -> Tuned:
    """Choose thresholds, certify them where asked to, measure them on samples they were not chosen by, write a bundle.

    Args:
        bundle: a loaded bundle.
        data: with the bundle's labels and input; its test part is left alone.
        options: what to look for.

    Raises:
        UsageError: options that exclude each other or are out of range; a data set that does not fit.
        TuningError: nothing could be certified, or no thresholds reach the target; nothing is written.
    """
    if options.certified is not None:
        raise UsageError("--certified takes no DATASET: what the certified thresholds lose is known")
    check_options(options)
    check_fits(data, bundle.spec)
    out = target_of(bundle, options)
    check_target(out, overwrite=options.overwrite)
    parts = tuning_parts(bundle, data, unseen=options.unseen, seed=options.seed)
    spec = _with_given(bundle.spec, options)
    measured = measure(bundle, parts, options.fmt, options.threads, options.policy)
    tuning, fresh = (_shuffled(each.outputs, options.seed) for each in measured)
    costs = exit_costs(spec, options.cost)
    vectors = _sequence(tuning, costs, spec, options)
    certificate = None
    if options.alpha is not None:
        certificate = _certificate(spec, data.name, tuning, fresh, measured[1], vectors, costs, options)
        vectors = vectors[: len(certificate.certified)]
    chosen = vectors[-1] if certificate is None else cheapest(tuning, vectors, costs)
    early = dict(zip(tuning.names[:-1], chosen, strict=False))
    tuned = override_exits(spec, options.fmt, policy=options.policy, thresholds=early)
    written = rewrite_bundle(bundle, out, tuned, certificate, overwrite=options.overwrite)
    return Tuned(written, data.name, options.fmt, tuning.names, chosen, len(tuning), fresh, costs, options.cost)


def target_of(bundle: Bundle, options: TuneOptions) -> Path:
    """Where the new bundle is written: beside the old one, unless told.

    Args:
        bundle: the old one.
        options: what is told.
    """
    return options.out or bundle.path.with_name(f"{bundle.path.name}-tuned")


def check_options(options: TuneOptions) -> None:
    """Raise `UsageError` unless just one thing is asked for, and every number is in its range.

    Args:
        options: to be checked before the work.
    """
    asked = {
        "--target-share": options.target_share,
        "--target-accuracy": options.target_accuracy,
        "--target-cost": options.target_cost,
        "--alpha": options.alpha,
        "--certified": options.certified,
    }
    given = [flag for flag, value in asked.items() if value is not None]
    if options.thresholds is not None and given != ["--alpha"]:
        given.append("--threshold")
    if len(given) != 1:
        raise UsageError(
            f"expected one of {', '.join(asked)}, --threshold, or --threshold with --alpha; "
            f"got {' and '.join(given) or 'none'}"
        )
    _check_promise(options)
    for flag, value, low, high in (
        ("--alpha", options.alpha, 0, 1),
        ("--delta", options.delta, 0, 1),
        ("--target-accuracy", options.target_accuracy, 0, 100),
        ("--target-cost", options.target_cost, 0, math.inf),
    ):
        if value is not None and not low < value < high:
            raise UsageError(f"{flag} must be between {low} and {high}, got {value:g}")


def _check_promise(options: TuneOptions) -> None:
    """What would mean nothing is refused, rather than left aside without a word."""
    of_promises = {"--delta": options.delta, "--loss": options.loss, "--guarantee": options.guarantee}
    for flag, value in (*of_promises.items(), ("--bound", options.bound)):
        if value is not None and options.alpha is None:
            raise UsageError(f"{flag} is about what --alpha promises: leave it out, or give --alpha")
    for flag, value in (("--delta", options.delta), ("--bound", options.bound)):
        if value is not None and options.guarantee == "expected":
            raise UsageError(f"{flag} means nothing with --guarantee expected: leave it out, or promise a probability")


def _with_given(spec: CascadeSpec, options: TuneOptions) -> CascadeSpec:
    """The cascade with the thresholds that were given, if any; checked before the work."""
    if options.thresholds is not None:
        return override_exits(spec, options.fmt, policy=options.policy, thresholds=options.thresholds)
    shares, exits = options.target_share, exits_of(spec, options.fmt)
    if shares is not None and (
        len(shares) != len(exits) or min(shares) < 0 or not math.isclose(sum(shares), 100, abs_tol=0.01)
    ):
        raise UsageError(
            f"--target-share must be a number from 0 up for each exit ({', '.join(exits)}), summing to 100 per cent, "
            f"got {','.join(f'{share:g}' for share in shares)}"
        )
    return spec


def _shuffled(outputs: ExitOutputs, seed: int) -> ExitOutputs:
    """In random order, which betting needs: a data set may be sorted by class."""
    return outputs.take(np.random.default_rng(seed).permutation(len(outputs)))


# --- choosing --------------------------------------------------------------------------------------------------------


def _sequence(tuning: ExitOutputs, costs: Sequence[float], spec: CascadeSpec, options: TuneOptions) -> list[Thresholds]:
    """The vectors of thresholds that are in question, safest first; the last is what is asked for, unless certified."""
    if options.thresholds is not None:
        return [tuple(settings.threshold for settings in exits_of(spec, options.fmt).values())]
    if options.target_share is not None:
        shares = [share / 100 for share in options.target_share]
        found = share_thresholds(list(tuning.scores), shares, tuning.policy, tuning.classes)
        return [tuple(each.threshold for each in found)]
    if options.alpha is not None:
        return path(tuning, options.loss or "gap", costs)
    vectors = frontier(tuning, "error", costs)
    if options.target_accuracy is not None:
        return _accurate(tuning, vectors, options.target_accuracy)
    return _cheap(tuning, vectors, costs, options)


def _accurate(tuning: ExitOutputs, vectors: list[Thresholds], target: float) -> list[Thresholds]:
    reached = [100 * (1 - losses.mean()) for losses in along(tuning, vectors, "error")]
    found = [vector for vector, accuracy in zip(vectors, reached, strict=True) if accuracy >= target]
    if not found:
        raise TuningError(
            f"no thresholds reach an accuracy of {target:g} % on the samples to tune with; "
            f"the best {reached[0]:.2f} %: ask for less, or train longer"
        )
    return found


def _cheap(
    tuning: ExitOutputs, vectors: list[Thresholds], costs: Sequence[float], options: TuneOptions
) -> list[Thresholds]:
    spent = [_cost(tuning, vector, costs) for vector in vectors]
    found = [vector for vector, cost in zip(vectors, spent, strict=True) if cost <= (options.target_cost or 0.0)]
    if not found:
        raise TuningError(
            f"no thresholds keep to a mean of {options.target_cost:,g} {options.cost} a sample on the samples to tune "
            f"with; the cheapest take {spent[-1]:,.1f}"
        )
    return found[:1]


# --- certifying ------------------------------------------------------------------------------------------------------


def _certificate(
    spec: CascadeSpec,
    dataset: str,
    tuning: ExitOutputs,
    fresh: ExitOutputs,
    measured: Measured,
    vectors: Sequence[Thresholds],
    costs: Sequence[float],
    options: TuneOptions,
) -> Certificate:
    """What can be promised of these vectors, the first of them at least."""
    alpha, expected = options.alpha or 0.0, options.guarantee == "expected"
    loss, delta = options.loss or "gap", options.delta or DELTA
    bound = options.bound or further_bound(tuning, vectors, loss, alpha, delta)
    losses = along(fresh, vectors, loss)
    kept = certify_expected(losses, alpha) if expected else certify(losses, alpha, delta, bound)
    if not kept:
        safest = next(along(fresh, vectors, loss))
        raise TuningError(_too_much(safest, None if expected else bound, options, alpha))
    return Certificate(
        loss=loss,
        guarantee=options.guarantee or "probability",
        method="conformal" if expected else bound,
        alpha=alpha,
        delta=None if expected else delta,
        samples=len(fresh),
        dataset=dataset,
        data_sha256=measured.sha256,
        seed=options.seed,
        formats={stage.name: options.fmt for stage in spec.stages},
        uplinks={stage.name: stage.uplink for stage in spec.stages if stage.uplink is not None},
        policy=fresh.policy,
        temperatures={name: settings.temperature for name, settings in exits_of(spec, options.fmt).items()},
        cost=options.cost,
        certified=tuple(_certified(fresh, vector, costs, loss) for vector in vectors[:kept]),
    )


def _certified(fresh: ExitOutputs, vector: Thresholds, costs: Sequence[float], loss: LossName) -> CertifiedThresholds:
    leaving = fresh.leaving(vector)
    return CertifiedThresholds(
        thresholds=dict(zip(fresh.names[:-1], vector, strict=False)),
        loss=float(at(fresh.losses(loss), leaving).mean()),
        cost=float(np.take(costs, leaving).mean()),
    )


def cheapest(outputs: ExitOutputs, vectors: Sequence[Thresholds], costs: Sequence[float]) -> Thresholds:
    """Of vectors that all are certified, that of least cost; the safest of several.

    It need not be the last: with several early exits costs may rise from one vector to the next.

    Args:
        outputs: of samples that nothing is certified with.
        vectors: safest first.
        costs: of a sample by the exit that it leaves at.
    """
    return min(vectors, key=lambda vector: _cost(outputs, vector, costs))


def _cost(outputs: ExitOutputs, vector: Thresholds, costs: Sequence[float]) -> float:
    """Mean of a sample."""
    return float(np.take(costs, outputs.leaving(vector)).mean())


def _too_much(safest: Losses, bound: Bound | None, options: TuneOptions, alpha: float) -> str:
    """Why nothing was certified, and what it would take; without a bound, of conformal risk control."""
    n, delta = len(safest), None if bound is None else options.delta or DELTA
    least, needed = (samples_needed(alpha, delta, bound or "binomial", *seen) for seen in ((), (safest,)))
    promise = f"{_IN_WORDS[options.loss or 'gap']} of at most {100 * alpha:g} %"
    promise += f" with probability {100 * (1 - delta):g} %" if delta is not None else " on average"
    if least is not None and n < least:
        takes = f"it takes {least:,} to certify with where not one is lost"
        if safest.any() and needed is not None:
            takes += f", about {needed:,} with losses as these"
        advice = f"{_give(max(least, needed or 0))}, or raise --alpha{' or --delta' if delta is not None else ''}"
        return f"too few samples to promise {promise}: {takes}, got {n:,}; {advice}"
    lost = f"{100 * counted(safest, bound):.2f} % on {n:,} samples"
    measured = f"cannot promise {promise}: the safest thresholds have one of {lost}"
    if needed is not None:
        return f"{measured}, and that takes about {needed:,} to certify with; {_give(needed)}, or raise --alpha"
    advice = "raise --alpha"
    if bound == "binomial" and safest.mean() < alpha <= counted(safest, bound):
        advice += ", or give new samples and --bound betting, which makes up for them by those that are won"
    lost_anyway = counted(safest, bound) >= alpha
    enough = "no number of such samples is" if lost_anyway else f"not even {MOST_SAMPLES:,} such samples are"
    return f"{measured}; {enough} enough: {advice}"


def _give(certify_with: int) -> str:
    """So many samples to certify with are this many in all."""
    everything = (HELD_OUT["tune"] + HELD_OUT["certify"]) / HELD_OUT["certify"]
    return f"give {math.ceil(certify_with * everything):,} or more that were not trained on, with --unseen"


_IN_WORDS = {
    "gap": "an accuracy gap to the full model",
    "disagreement": "a disagreement with the full model",
    "error": "an error",
}
