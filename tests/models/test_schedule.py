from __future__ import annotations

import numpy as np
import pytest

from branchy.models.backend import tf
from branchy.models.schedule import ByStep, Schedule, ScheduleName


def _at(schedule: Schedule, *epochs: float) -> list[float]:
    return [float(schedule.at(tf.constant(epoch, tf.float32))) for epoch in epochs]


def test_constant_stays() -> None:
    assert _at(Schedule("constant", 0.5, 10), 0, 3, 10) == [0.5, 0.5, 0.5]


def test_cosine_falls_from_the_whole_rate_over_its_half_to_nothing() -> None:
    assert _at(Schedule("cosine", 0.5, 10), 0, 5, 10) == pytest.approx([0.5, 0.25, 0], abs=1e-7)


def test_step_falls_to_a_tenth_after_a_half_and_to_a_hundredth_after_three_quarters() -> None:
    assert _at(Schedule("step", 0.5, 8), 0, 3.9, 4.1, 5.9, 6.1) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_a_warm_up_rises_evenly_to_the_whole_rate_and_the_rest_has_what_is_left(name: ScheduleName) -> None:
    warm, plain = Schedule(name, 0.5, 12, warmup_epochs=2), Schedule(name, 0.5, 10)
    assert _at(warm, 0, 0.5, 1, 2) == pytest.approx([0, 0.125, 0.25, 0.5])
    assert _at(warm, 3, 7.5, 11) == pytest.approx(_at(plain, 1, 5.5, 9))


def test_each_step_has_the_rate_of_its_middle_so_that_none_is_lost() -> None:
    steps = ByStep(Schedule("cosine", 1.0, 2, warmup_epochs=1), steps_per_epoch=4)
    rates = [float(steps(tf.constant(step))) for step in range(8)]
    assert np.allclose(rates[:4], [1 / 8, 3 / 8, 5 / 8, 7 / 8])
    assert min(rates) > 0
