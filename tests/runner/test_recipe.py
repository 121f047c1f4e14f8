from __future__ import annotations

from typing import Any

import pytest

from branchy.errors import UsageError
from branchy.runner.recipe import Recipe


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augment": ("flip", "melt")}, "--augment must be different names of flip, shift, erase, .*got flip,melt"),
        ({"augment": ("flip", "flip")}, "--augment must be different names"),
        ({"warmup_epochs": -1.0}, r"--warmup-epochs must be in 0\.\.20 .*got -1"),
        (
            {"warmup_epochs": 20.5},
            r"--warmup-epochs must be in 0\.\.20 \(--epochs\), or the rate never gets .*got 20.5",
        ),
        ({"warmup_epochs": float("nan")}, "--warmup-epochs"),
        ({"patience": 0}, "--patience must be at least 1"),
        ({"distill": ()}, "--distill must be a weight in 0..1"),
        ({"distill": (1.5,)}, "--distill must be a weight in 0..1 .*got 1.5"),
        ({"distill": (0.5, 0.0)}, "a temperature above 0, got 0.5,0"),
        ({"distill": (0.5, 1.0, 2.0)}, "got 0.5,1,2"),
    ],
)
def test_what_cannot_be_is_wrong_use(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Recipe(**options).check(20)


def test_what_can_be_is_not() -> None:
    Recipe().check(1)
    Recipe(augment=("shift", "flip"), warmup_epochs=2, patience=1, distill=(1.0, 4.0)).check(2)


@pytest.mark.parametrize(
    "weights", [(1.0, 2.0), (), (1.0, 2.0, 0.0), (1.0, 2.0, float("nan")), (1.0, 2.0, float("inf"))]
)
def test_class_weights_are_a_number_above_0_for_each_class(weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"--class-weights needs .* for each of the 3 classes \(a, b, c\), got"):
        Recipe(class_weights=weights).check_classes(("a", "b", "c"))
    for usable in ("none", "balanced", (0.5, 1.0, 2.0)):
        Recipe(class_weights=usable).check_classes(("a", "b", "c"))
