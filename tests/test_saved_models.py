"""The bundle that comes with branchy: small, whole, and right as it was trained."""

import json
from pathlib import Path

import pytest

from branchy.runner.tier_loading import load_tier
from branchy.store.bundle import Bundle

SHIPPED = Path(__file__).parent.parent / "saved_models" / "fashion-mnist-b-lenet"
MOST_BYTES = 3_000_000


def test_the_shipped_bundle_is_small_and_names_its_command_and_seed():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < MOST_BYTES
    training = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["training"]
    assert training["command"].startswith("branchy train fashion-mnist ")
    assert isinstance(training["seed"], int)


@pytest.mark.parametrize("tier", ["edge", "fog", "cloud", "full"])
def test_each_tier_of_the_shipped_bundle_gives_here_what_it_gave_at_training(tier):
    load_tier(Bundle.load(SHIPPED), (tier,)).close()  # which holds it against its digests and golden inputs
