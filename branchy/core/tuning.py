"""Choosing thresholds from what every exit said of every sample, without running the model again.

A vector of thresholds, one an exit, is held against two numbers: its mean loss and its mean cost.
The ones worth having are those that no other beats in both: from safest to cheapest they are what
thresholds are swept and certified along (Pareto testing: Laufer-Goldshtein, Fisch, Barzilay and
Jaakkola, 2023).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from branchy.core.calibration import always, cut
from branchy.core.cascade import ExitSettings, PolicyName
from branchy.core.guarantee import Bound, Losses, certify
from branchy.core.policies import is_sure

LossName = Literal["gap", "disagreement", "error"]
Thresholds = tuple[float, ...]
"""One an exit, in order; the last exit always answers."""

_GRID = 4096
"""Vectors of thresholds that are looked at, over all early exits together."""
_FINEST = 256
"""Thresholds that are looked at for one exit."""
_STEPS = 32
"""No step of a path moves a threshold past more than this part of its candidates."""


@dataclass(frozen=True)
class ExitOutputs:
    """What each of k exits says of each of n samples, whether the sample would get there or not.

    Attributes:
        names: the exits' stages, in order; the last exit always answers.
        policy: what the scores are.
        scores: (k, n) of `policies.score`.
        predictions: (k, n) class indices.
        full: (n,) the full model's class indices.
        labels: (n,) the true ones.
        classes: how many there are.
    """

    names: tuple[str, ...]
    policy: PolicyName
    scores: NDArray[np.float64]
    predictions: NDArray[np.int64]
    full: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> ExitOutputs:
        """The same of some of the samples, in this order.

        Args:
            positions: (m,) in 0..n-1; one may come more than once.
        """
        return ExitOutputs(
            self.names,
            self.policy,
            self.scores[:, positions],
            self.predictions[:, positions],
            self.full[positions],
            self.labels[positions],
            self.classes,
        )

    def losses(self, loss: LossName) -> Losses:
        """What it costs when a sample leaves at an exit, were it to.

        Args:
            loss: `gap`: 1 where the exit is wrong and the full model right, -1 the other way round, so that
                the mean is the accuracy that is lost against the full model. `disagreement`: 1 where the
                exit names another class than the full model; needs no labels. `error`: 1 where the exit is
                wrong.

        Returns:
            (k, n).
        """
        if loss == "disagreement":
            return np.asarray(self.predictions != self.full, dtype=np.int8)
        wrong = np.asarray(self.predictions != self.labels, dtype=np.int8)
        if loss == "error":
            return wrong
        return wrong - np.asarray(self.full != self.labels, dtype=np.int8)

    def leaving(self, thresholds: Thresholds) -> NDArray[np.int64]:
        """The exit, from 0, at which each sample leaves: the first that is sure, or the last.

        Args:
            thresholds: one an exit; the last one's is of no matter.

        Returns:
            (n,) in 0..k-1.
        """
        *early, last = range(len(self.names))
        out = np.full(len(self), last)
        for exit_ in reversed(early):
            out = np.where(is_sure(self.scores[exit_], ExitSettings(self.policy, thresholds[exit_])), exit_, out)
        return out


def at(table: Losses, leaving: NDArray[np.int64]) -> Losses:
    """Of what each sample loses at each exit, what it loses where it leaves.

    Args:
        table: (k, n) from `ExitOutputs.losses`.
        leaving: (n,) from `ExitOutputs.leaving`.

    Returns:
        (n,).
    """
    return np.asarray(table[leaving, np.arange(len(leaving))])


def frontier(outputs: ExitOutputs, loss: LossName, costs: Sequence[float]) -> list[Thresholds]:
    """The vectors that no other beats in both loss and cost on these samples, safest first.

    Args:
        outputs: of the samples to choose by.
        loss: what is lost.
        costs: of a sample by the exit at which it leaves.

    Returns:
        At least one; each loses more than the one before and costs less. With up to two early exits
        the steps are fine (`_GRID` vectors are looked at).
    """
    grid = _Grid.of(outputs)
    return [grid.vector(places) for places in grid.frontier(outputs, loss, costs)]


def path(outputs: ExitOutputs, loss: LossName, costs: Sequence[float]) -> list[Thresholds]:
    """A way in small steps from thresholds at which (all but) nobody leaves early along the `frontier`.

    Testing along it is Pareto testing (Laufer-Goldshtein et al., 2023). On few samples the frontier begins
    far out, with vectors that lose nothing there by luck; what is certified in order needs safer ones before.

    Args:
        outputs: of the samples to choose by; never of those to certify with.
        loss: what is lost.
        costs: of a sample by the exit at which it leaves, (k,) in any unit.

    Returns:
        Vectors, safest first, at least one.
    """
    grid = _Grid.of(outputs)
    stops = [(0,) * len(grid.candidates), *grid.frontier(outputs, loss, costs)]
    places = dict.fromkeys(step for a, b in itertools.pairwise(stops) for step in grid.between(a, b))
    return [grid.vector(each) for each in places]


def along(outputs: ExitOutputs, vectors: Iterable[Thresholds], loss: LossName) -> Iterator[Losses]:
    """What is lost with each vector, (n,) one after the other: what is certified in sequence.

    Args:
        outputs: of n samples.
        vectors: safest first.
        loss: what is lost.
    """
    table = outputs.losses(loss)
    return (at(table, outputs.leaving(vector)) for vector in vectors)


def further_bound(
    outputs: ExitOutputs, vectors: Sequence[Thresholds], loss: LossName, alpha: float, delta: float
) -> Bound:
    """The bound that certifies more of these vectors on these samples, on which a choice is free.

    Args:
        outputs: of the samples to choose by, in random order; never of those to certify with.
        vectors: safest first.
        loss: what is lost.
        alpha: as for `certify`.
        delta: as for `certify`.
    """
    return max(get_args(Bound), key=lambda bound: certify(along(outputs, vectors, loss), alpha, delta, bound))


@dataclass(frozen=True)
class _Grid:
    """Vectors of candidate thresholds, each known by its place on the axes of the early exits.

    Attributes:
        candidates: for each early exit, strictest first.
        last: the last exit's threshold.
    """

    candidates: tuple[NDArray[np.float64], ...]
    last: float

    @classmethod
    def of(cls, outputs: ExitOutputs) -> _Grid:
        early = range(len(outputs.names) - 1)
        return cls(tuple(_candidates(outputs, k) for k in early), always(outputs.policy, outputs.classes))

    def vector(self, places: tuple[int, ...]) -> Thresholds:
        return (*(float(c[place]) for c, place in zip(self.candidates, places, strict=True)), self.last)

    def between(self, a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Places from one to another, both included; none far from the next on any axis."""
        sizes = [len(c) for c in self.candidates]
        far = [abs(to - from_) * _STEPS / size for from_, to, size in zip(a, b, sizes, strict=True)]
        steps = np.linspace(a, b, 2 + int(max(far, default=0.0)))
        return [tuple(each) for each in np.rint(steps).astype(int).tolist()]

    def frontier(self, outputs: ExitOutputs, loss: LossName, costs: Sequence[float]) -> list[tuple[int, ...]]:
        sizes = [len(c) for c in self.candidates]
        if not sizes:
            return [()]
        bins = [_bins(outputs, k, c) for k, c in enumerate(self.candidates)]
        lost = _grid_sums(bins, sizes, outputs.losses(loss)).sum(axis=0)
        left = _grid_sums(bins, sizes, np.ones_like(outputs.predictions))
        cost = np.tensordot(np.asarray(costs, np.float64), left, axes=1)
        out: list[tuple[int, ...]] = []
        cheapest = np.inf
        for cell in np.lexsort((cost.ravel(), lost.ravel())):
            if cost.flat[cell] < cheapest:
                cheapest = cost.flat[cell]
                out.append(tuple(int(place) for place in np.unravel_index(cell, cost.shape)))
        return out


def _candidates(outputs: ExitOutputs, exit_: int) -> NDArray[np.float64]:
    """Thresholds to look at for an exit, strictest first; about as many samples between each two."""
    early = len(outputs.names) - 1
    steps = max(2, min(_FINEST, int(_GRID ** (1 / early) + 1e-9)))
    sign = -1.0 if outputs.policy == "entropy" else 1.0
    strictest = 0.0 if outputs.policy == "entropy" else 1.0
    ordered = -np.sort(-sign * outputs.scores[exit_])
    laxest = always(outputs.policy, outputs.classes)
    counts = np.rint(np.linspace(0, len(ordered), steps)).astype(int)
    found = {cut(ordered, int(count), sign * strictest, sign * laxest) for count in counts}
    return sign * np.array(sorted(found, reverse=True))


def _bins(outputs: ExitOutputs, exit_: int, candidates: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the first candidate at which a sample would leave at this exit; their number where at none."""
    sign = -1.0 if outputs.policy == "entropy" else 1.0
    return np.asarray(np.searchsorted(-sign * candidates, -sign * outputs.scores[exit_], side="left"))


def _grid_sums(
    bins: Sequence[NDArray[np.int64]], sizes: Sequence[int], table: NDArray[np.generic]
) -> NDArray[np.float64]:
    """For every vector of the grid and every exit, the sum of the table over the samples that leave there.

    A sample leaves at exit k when its bin is past the vector's place at each exit before k, and at or
    before it at k: sums over boxes, and so cumulative sums of a histogram over the bins.

    Args:
        bins: for each early exit (n,).
        sizes: for each early exit the number of candidates.
        table: (k, n) what counts for a sample at each exit.

    Returns:
        (k, *sizes).
    """
    shape = tuple(size + 1 for size in sizes)
    cells = np.ravel_multi_index(tuple(bins), shape)
    out = []
    for k, weights in enumerate(table):
        sums = np.bincount(cells, weights=weights, minlength=int(np.prod(shape))).reshape(shape)
        for axis, size in enumerate(sizes):
            inner = np.cumsum(sums, axis=axis)
            total = np.take(inner, [-1], axis=axis)
            here = np.take(inner, range(size), axis=axis)
            sums = total - here if axis < k else here if axis == k else total
        out.append(np.broadcast_to(sums, tuple(sizes)))
    return np.stack(out)
