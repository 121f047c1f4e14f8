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
        ({"warmup_epochs": -1.0}, "--warmup-epochs must be at or above 0, got -1"),
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
        Recipe(**options).check()


def test_what_can_be_is_not() -> None:
    Recipe().check()
    Recipe(augment=("shift", "flip"), warmup_epochs=0.5, patience=1, distill=(1.0, 4.0)).check()
