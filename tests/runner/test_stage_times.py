from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_data import toy_dataset

from branchy.runner.cascade import Cascade
from branchy.runner.stage_times import PROBES, time_stages
from branchy.store.bundle import Bundle


def test_every_tier_is_timed_one_sample_at_a_time_with_its_request(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = Cascade.predict
    monkeypatch.setattr(
        Cascade, "predict", lambda self, samples, *args: sizes.append(len(samples)) or predict(self, samples, *args)
    )
    part = toy_dataset(tmp_path / "toy.npz", 2 * PROBES).pool
    timed = time_stages(toy_bundle, part, "litert", 1)
    assert set(sizes) == {1}
    assert len(sizes) == 2 * PROBES + 2  # cascade and full model, and each once before
    assert [tier.name for tier in timed.tiers] == ["edge", "cloud"]  # the stage between them has no exit
    assert all(tier.compute_ms > 0 for tier in (*timed.tiers, timed.full))
    hops = Cascade(toy_bundle, stage="cloud").predict(part.read(np.arange(1))[0])[0].hops
    assert [tier.bytes_up for tier in timed.tiers] == pytest.approx([hop.bytes_up for hop in hops], abs=2)
    full = Cascade(toy_bundle, stage="full")
    assert timed.full.bytes_up == pytest.approx(full.request_bytes(part.read(np.arange(1))[0][0]), abs=2)
