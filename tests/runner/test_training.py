from __future__ import annotations

from branchy.store.bundle import Bundle


def test_a_trained_bundle_loads_with_its_stages_in_order(digits_bundle: Bundle) -> None:
    assert [stage.name for stage in Bundle.load(digits_bundle.path).spec.stages] == ["edge", "fog", "cloud"]
