"""How `serve` opens its links; what a running tier does is in tests/integration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchy.config import LinkSettings, ServeSettings
from branchy.core.cascade import Uplink
from branchy.errors import TransportError, UsageError
from branchy.runner import serving
from branchy.runner.serving import serve
from branchy.runner.tier_loading import Loaded, load_tier
from branchy.store.bundle import Bundle
from branchy.transport.base import Sender
from branchy.transport.memory import MemoryBroker, MemoryLink


def test_the_back_alone_sends_to_topics_whose_limits_nobody_asked_for(toy_bundle: Bundle):
    """Answers go where requests say; what goes up, to the one queue that was prepared."""
    broker = MemoryBroker()
    to_unprepared: dict[str, bool] = {}

    class Recording(MemoryLink):
        def __init__(self, settings: LinkSettings, name: str) -> None:
            self.name = name
            super().__init__(broker, name)

        def sender(self, *args: Any, **how: Any) -> Sender:
            to_unprepared[self.name] = how.get("to_unprepared", False)
            if self.name == "back":
                raise TransportError("seen enough")
            return super().sender(*args, **how)

    with pytest.raises(TransportError, match="seen enough"):
        serve(ServeSettings(bundle=toy_bundle.path, tier=("edge",)), Recording)
    assert to_unprepared == {"front": False, "back": True}


@pytest.mark.parametrize("uplink", ["sample", "activation"])
def test_a_queue_is_made_as_large_by_the_tier_behind_as_by_its_own(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, uplink: str
):
    """Whoever starts first makes it; a sample was sent up in uint8, and taken in any form."""
    broker = MemoryBroker()
    made: dict[tuple[str, str], int] = {}

    class Recording(MemoryLink):
        def __init__(self, settings: LinkSettings, name: str) -> None:
            super().__init__(broker, name)
            self.name = name

        def prepare(
            self, names: Sequence[str], timeout_s: float, largest: Mapping[str, int] | None = None
        ) -> Mapping[str, int]:
            made.update({(self.name, name): size for name, size in (largest or {}).items()})
            return super().prepare(names, timeout_s, largest)

        def check_may_write(self, name: str, timeout_s: float) -> None:
            raise TransportError("seen enough")

    def sample_sent(*args: Any, **how: Any) -> Loaded:
        loaded = load_tier(*args, **how)
        edge, hall, cloud = loaded.spec.stages
        edge = replace(edge, activation=edge.input, uplink=Uplink("sample", "uint8"))
        hall = replace(hall, inputs=edge.inputs, input=edge.input)
        spec = replace(loaded.spec, stages=(edge, hall, cloud))
        stages = tuple(spec.stage(stage.name) for stage in loaded.model.stages)
        return replace(loaded, spec=spec, model=replace(loaded.model, stages=stages))

    if uplink == "sample":
        monkeypatch.setattr(serving, "load_tier", sample_sent)
    for tier in (("edge",), ("hall", "cloud")):
        with pytest.raises(TransportError, match="seen enough"):
            serve(ServeSettings(bundle=toy_bundle.path, tier=tier), Recording)
    queue = "branchy.toy.hall.requests"
    assert made["front", queue] == made["back", queue] == {"sample": 4 * 16, "activation": 4 * 6}[uplink]


def test_a_ready_file_that_cannot_be_written_is_found_before_the_work(toy_bundle: Bundle, tmp_path: Path):
    def no_link(*_: Any) -> Any:
        pytest.fail("the work was begun")

    settings = ServeSettings(bundle=toy_bundle.path, tier=("edge",))
    with pytest.raises(UsageError, match=r"--ready-file .*ready: expected a folder to write to, got .*gone; make it"):
        serve(settings, no_link, ready_file=tmp_path / "gone" / "ready")
