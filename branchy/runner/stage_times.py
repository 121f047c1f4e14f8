"""How long each tier and the full model take for one sample on this machine, and what their requests weigh."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from branchy.core.cascade import FULL, FormatName
from branchy.core.payoff import TierFigures
from branchy.datasets import Part
from branchy.runner.cascade import Cascade
from branchy.store.bundle import Bundle

PROBES = 100
"""Samples that are sent one by one through cascade and full model, in turn, to time them."""


@dataclass(frozen=True)
class Timed:
    """One sample at a time on this machine: each tier of the cascade, and the full model with the request it takes."""

    tiers: tuple[TierFigures, ...]
    full: TierFigures


def time_stages(bundle: Bundle, part: Part, fmt: FormatName, threads: int) -> Timed:
    """Median time of each tier and of the full model for one sample, and the bytes of their requests.

    Only the models' own time counts. Both run in turn, so that whatever else the machine does is shared.

    Args:
        bundle: a loaded bundle.
        part: whose first `PROBES` samples are sent.
        fmt: which of the bundle's formats is run.
        threads: how many threads one batch may use.

    Raises:
        BundleError: a stage is not exported in that format.
        EngineError: see `tier_loading.load_tier`.
        DatasetError: a sample cannot be read.
    """
    samples, _ = part.read(np.arange(min(PROBES, len(part))))
    last = bundle.spec.stages[-1].name
    with (
        closing(Cascade(bundle, fmt, threads, stage=last)) as cascade,
        closing(Cascade(bundle, fmt, threads, stage=FULL)) as full,
    ):
        for each in (cascade, full):
            each.predict(samples[:1])  # what an engine makes on first use is no part of the times
        seen = [(cascade.predict(sample[None])[0].hops, full.predict(sample[None])[0].hops[0]) for sample in samples]
        hops = list(zip(*(hops for hops, _ in seen), strict=True))
        sample_bytes = full.request_bytes(samples[0])
    tiers = tuple(
        TierFigures(
            each[0].exit or each[0].tier,
            float(np.median([hop.compute_ms for hop in each])),
            round(float(np.mean([hop.bytes_up for hop in each]))),
        )
        for each in hops
    )
    return Timed(tiers, TierFigures(FULL, float(np.median([hop.compute_ms for _, hop in seen])), sample_bytes))
