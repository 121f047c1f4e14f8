"""How `serve` opens its links; what a running tier does is in tests/integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from branchy.config import LinkSettings, ServeSettings
from branchy.errors import TransportError, UsageError
from branchy.runner.serving import serve
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


def test_a_ready_file_that_cannot_be_written_is_found_before_the_work(toy_bundle: Bundle, tmp_path: Path):
    def no_link(*_: Any) -> Any:
        pytest.fail("the work was begun")

    settings = ServeSettings(bundle=toy_bundle.path, tier=("edge",))
    with pytest.raises(UsageError, match=r"--ready-file .*ready: expected a folder to write to, got .*gone; make it"):
        serve(settings, no_link, ready_file=tmp_path / "gone" / "ready")
