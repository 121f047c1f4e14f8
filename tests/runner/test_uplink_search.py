"""Which of several a cut gets, by what each is said to lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from branchy.datasets import Part, load
from branchy.errors import UsageError
from branchy.models import bottleneck_training
from branchy.models.splitting import Network
from branchy.models.wanted import Sends, Wanted
from branchy.runner.architecture import build_network
from branchy.runner.request_sizes import body_bytes
from branchy.runner.uplink_search import Searched, check_room, searched

Search = Callable[..., Searched]
SAMPLE_BYTES = 136
"""Of the body of a request with one of the digits; the edge's activation has twice as many in float16."""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the codes of all bottlenecks that were trained, in order."""
    sizes: list[int] = []
    monkeypatch.setattr(
        bottleneck_training, "fit_bottleneck", lambda around, each, *_, **__: sizes.append(each.size_bytes)
    )
    return sizes


@pytest.fixture
def search(tried: list[int], monkeypatch: pytest.MonkeyPatch) -> Search:
    """A search over B-LeNet whose bottlenecks lose so many points, by the bytes of their codes; `before` behind one."""
    data = load("digits")

    def run(
        *uplinks: str, points: Callable[[int], float], before: float = 0.0, arch: str = "b-lenet", **budgets: Any
    ) -> Searched:
        def accuracies(around: Any, bottleneck: Any, part: Part) -> dict[str, float]:
            lost = before if around.stage.input.name == "activation" and around.stage.input.dtype == "uint8" else 0.0
            lost += 0.0 if bottleneck is None else points(bottleneck.size_bytes)
            return {name: 0.9 - lost / 100 * (name == around.exits[-1]) for name in around.exits}

        monkeypatch.setattr(bottleneck_training, "accuracies", accuracies)
        sends = Sends(uplinks, "float16", **budgets)
        network = build_network(arch, data, Wanted(), None, sends)
        check_room(network, data.input, sends)
        parts = {name: data.pool.take(np.arange(20)) for name in ("train", "early-stop")}
        return searched(network, data.input, parts, sends, batch_size=4, seed=0)

    return run


def _kinds(network: Network) -> list[str]:
    return [stage.spec.uplink.kind for stage in network.stages if stage.spec.uplink is not None]


def _sent_bytes(network: Network, cut: int) -> int:
    spec = network.stages[cut].spec
    assert spec.activation is not None
    assert spec.uplink is not None
    return body_bytes(spec.activation, spec.uplink.dtype)


def test_auto_takes_the_smallest_bottleneck_that_loses_little_enough(search: Search, tried: list[int]) -> None:
    network = search("auto", "activation", points=lambda size: 1.5 if size < 14 else 0.5).network
    assert _kinds(network) == ["bottleneck", "activation"]
    assert tried == sorted(tried)
    assert tried[-2] < 14 <= tried[-1] == network.stages[1].spec.input.values


def test_auto_goes_by_the_budget_and_the_exit_that_loses_most(search: Search, tried: list[int]) -> None:
    search("auto", "activation", points=lambda size: 1.5, most_lost=1.5)
    assert len(tried) == 1


def test_auto_sends_the_sample_where_no_smaller_bottleneck_will_do(search: Search, tried: list[int]) -> None:
    network = search("auto", "activation", points=lambda size: 1.5).network
    assert _kinds(network) == ["sample", "activation"]
    assert network.stages[1].spec.inputs[0].stage is None
    assert _sent_bytes(network, 0) == SAMPLE_BYTES
    assert all(size + 72 < SAMPLE_BYTES for size in tried)


def test_auto_sends_the_activation_where_the_sample_is_gone_and_nothing_smaller_will_do(search: Search) -> None:
    assert _kinds(search("activation", "auto", points=lambda size: 1.5).network) == ["activation", "activation"]


def test_a_bottleneck_is_the_most_accurate_within_its_bytes(search: Search, tried: list[int]) -> None:
    network = search("bottleneck", "activation", points=lambda size: abs(size - 14), most_bytes=104).network
    assert _kinds(network) == ["bottleneck", "activation"]
    assert _sent_bytes(network, 0) == 72 + 16
    assert tried == [1, 2, 4, 8, 16, 32]


def test_a_bottleneck_that_cannot_keep_both_budgets_is_taken_with_a_warning(
    search: Search, caplog: pytest.LogCaptureFixture
) -> None:
    found = search("bottleneck", "activation", points=lambda size: 2.5 if size == 8 else 4, most_bytes=104)
    assert _kinds(found.network) == ["bottleneck", "activation"]
    (line,) = found.over_budget
    assert line.startswith("edge: no bottleneck within the bytes is within --uplink-accuracy: the one of 80 bytes")
    assert "loses 2.50 points of 1; give more --uplink-bytes" in line
    assert line in caplog.messages


def test_a_bottleneck_within_both_budgets_is_not_warned_of(search: Search, caplog: pytest.LogCaptureFixture) -> None:
    found = search("bottleneck", "activation", points=lambda size: 2.5, most_bytes=104, most_lost=2.5)
    assert found.over_budget == ()
    assert "--uplink-accuracy" not in caplog.text


def test_every_cut_gets_its_own_behind_those_before_it(search: Search) -> None:
    network = search("bottleneck", points=lambda size: 0.0, most_bytes=100).network
    assert _kinds(network) == ["bottleneck", "bottleneck"]
    inputs = [stage.spec.input for stage in network.stages]
    assert [each.dtype for each in inputs] == ["uint8"] * 3
    assert inputs[1] == network.stages[0].spec.activation


def test_after_a_stage_without_an_exit_nothing_is_searched_for(search: Search, tried: list[int]) -> None:
    import own_arch

    network = search("bottleneck", points=lambda size: 0.0, arch=f"{own_arch.__file__}:build").network
    assert _kinds(network) == ["bottleneck", "activation"]


def test_too_few_bytes_for_any_bottleneck_are_wrong_use_before_any_is_trained(search: Search, tried: list[int]) -> None:
    with pytest.raises(UsageError, match=r"--uplink-bytes 70: no bottleneck after edge is so small; .* 73 bytes"):
        search("bottleneck", points=lambda size: 0.0, most_bytes=70)
    assert not tried


def test_what_is_lost_at_the_cuts_before_counts(search: Search) -> None:
    assert _kinds(search("auto", points=lambda size: 0.5, before=0.4).network) == ["bottleneck", "bottleneck"]
    assert _kinds(search("auto", points=lambda size: 0.5, before=0.6).network) == ["bottleneck", "activation"]
