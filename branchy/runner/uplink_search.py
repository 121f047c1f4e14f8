"""Which bottleneck a cut gets, or whether it sends the sample or its activation: tried out after training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from branchy.core.cascade import InputSpec, StageSpec, TensorSpec, Uplink
from branchy.datasets import Part
from branchy.errors import UsageError
from branchy.models.wanted import SEARCHED, Sends
from branchy.runner.request_sizes import body_bytes, sides

if TYPE_CHECKING:
    from branchy.models.bottleneck import Bottleneck
    from branchy.models.bottleneck_training import Surroundings
    from branchy.models.splitting import Network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        network: each of its cuts as it was wanted.
        over_budget: a line for each cut whose bottleneck loses more than the accuracy budget.
    """

    network: Network
    over_budget: tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """A bottleneck and what it costs.

    Attributes:
        bottleneck: trained.
        body_bytes: of a request that carries its codes.
        lost: per cent of the samples that an exit behind classifies right less often than without any bottleneck,
            at this cut or before; of the exit that loses most.
    """

    bottleneck: Bottleneck
    body_bytes: int
    lost: float


def searched(
    network: Network, sample: InputSpec, parts: Mapping[str, Part], sends: Sends, *, batch_size: int, seed: int
) -> Searched:
    """A trained network with each cut as it was wanted: bottlenecks found and trained, `auto` decided.

    One cut after the other, from the device on, each with what was decided before. The weights of the
    network stay. After a stage without an exit nothing is sent, and so nothing is searched for.

    Args:
        network: whose cuts send their activations where something is searched for.
        sample: what goes in.
        parts: `train` to train bottlenecks with, `early-stop` to compare them.
        sends: what is wanted of the cuts.
        batch_size: samples a training step.
        seed: of the bottlenecks' weights and the order of the samples.

    Raises:
        UsageError: no bottleneck is as small as is asked for (see `check_room`).
        TrainingError: a bottleneck's loss became NaN or infinite.
    """
    from branchy.models.bottleneck_training import Surroundings, accuracies
    from branchy.models.splitting import split

    cuts, names = _cuts(network, sends), sends.named(len(network.stages) - 1)
    first, over_budget = next(iter(cuts), None), list[str]()
    reference = {} if first is None else accuracies(Surroundings(network.stages, first), None, parts["early-stop"])
    for cut, name in cuts.items():
        search = _Search(network, cut, sample, parts, sends, reference, batch_size, seed)
        chosen = search.smallest() if name == "auto" else search.most_accurate()
        if isinstance(chosen, Uplink) and chosen.kind == "sample":
            uplinks = [sends.uplink(wanted, sample.tensor) for wanted in ("sample",) * (cut + 1) + names[cut + 1 :]]
            network = split(network.built, sample, uplinks)  # no cut before this one sends anything else
        elif isinstance(chosen, Tried):
            network = search.with_bottleneck(chosen)
            over_budget += search.over_budget(chosen)
    return Searched(network, tuple(over_budget))


def check_room(network: Network, sample: InputSpec, sends: Sends) -> None:
    """See to it, before any training, that a bottleneck can be as small as is asked for.

    Args:
        network: whose cuts send their activations where something is searched for.
        sample: what goes in.
        sends: what is wanted of the cuts.

    Raises:
        UsageError: none is so small.
    """
    from branchy.models.bottleneck import ladder

    for cut, name in _cuts(network, sends).items():
        stage = network.stages[cut].spec
        most_bytes = sends.most_bytes or min(_others(stage, sample.tensor, sends).values())
        if name == "bottleneck" and stage.activation and not ladder(stage.activation.shape, _room(most_bytes)):
            raise _none_so_small(stage, most_bytes)


def _none_so_small(stage: StageSpec, most_bytes: int) -> UsageError:
    return UsageError(
        f"--uplink-bytes {most_bytes}: no bottleneck after {stage.name} is so small; a request's body has "
        f"{_codes_bytes(1)} bytes with a single byte of codes"
    )


def _cuts(network: Network, sends: Sends) -> dict[int, str]:
    """By the position of the stage before it, what is searched for at a cut."""
    names = sends.named(len(network.stages) - 1)
    exits = [stage.spec.logits is not None for stage in network.stages]
    return {cut: name for cut, name in enumerate(names) if name in SEARCHED and exits[cut]}


class _Search:
    """The bottlenecks for one cut, trained and compared one after the other."""

    def __init__(
        self,
        network: Network,
        cut: int,
        sample: InputSpec,
        parts: Mapping[str, Part],
        sends: Sends,
        reference: Mapping[str, float],
        batch_size: int,
        seed: int,
    ) -> None:
        from branchy.models.bottleneck_training import Surroundings

        self._network, self._cut, self._sends = network, cut, sends
        self._train, self._early_stop = parts["train"], parts["early-stop"]
        self._batch_size, self._seed = batch_size, seed
        self._around: Surroundings = Surroundings(network.stages, cut)
        self._reference = reference
        self._others = _others(network.stages[cut].spec, sample.tensor, sends)

    def smallest(self) -> Tried | Uplink:
        """The smallest of sample, activation and bottlenecks that loses no more than it may."""
        uplink, most_bytes = min(self._others.items(), key=lambda item: item[1])
        for tried in self._tried(most_bytes - 1):
            if tried.lost <= self._sends.most_lost:
                return tried
        log.info(
            "%s sends its %s, %d bytes: no smaller bottleneck loses at most %g points",
            self._around.stage.name,
            uplink.kind,
            most_bytes,
            self._sends.most_lost,
        )
        return uplink

    def most_accurate(self) -> Tried:
        """The bottleneck that loses least within the byte budget; the smaller of equals."""
        most_bytes = self._sends.most_bytes or min(self._others.values())
        best = min(self._tried(most_bytes), key=lambda tried: tried.lost, default=None)
        if best is None:  # the sample, where a cut before sends it, may be smaller than what was reckoned with
            raise _none_so_small(self._around.stage, most_bytes)
        return best

    def over_budget(self, tried: Tried) -> list[str]:
        """A warning where a bottleneck, though it loses least within its bytes, loses more than it may."""
        if tried.lost <= self._sends.most_lost:
            return []
        found = (
            f"{self._around.stage.name}: no bottleneck within the bytes is within --uplink-accuracy: the one of "
            f"{tried.body_bytes} bytes loses {tried.lost:.2f} points of {self._sends.most_lost:g}; give more "
            "--uplink-bytes, or let --uplink auto choose"
        )
        log.warning("%s", found)
        return [found]

    def with_bottleneck(self, tried: Tried) -> Network:
        from branchy.models.splitting import squeezed

        log.info(
            "%s sends a bottleneck of %d bytes: %.2f points lost behind it",
            self._around.stage.name,
            tried.body_bytes,
            tried.lost,
        )
        return squeezed(self._network, self._cut, tried.bottleneck)

    def _tried(self, most_bytes: int) -> Iterator[Tried]:
        """Bottlenecks with bodies of at most so many bytes, from small to large, each trained when it is asked for."""
        from branchy.models.bottleneck import Bottleneck, ladder
        from branchy.models.bottleneck_training import accuracies, fit_bottleneck

        stage = self._around.stage
        shape = stage.activation.shape if stage.activation else ()
        for squeeze in ladder(shape, _room(most_bytes)):
            bottleneck = Bottleneck(shape, squeeze, self._seed)
            fit_bottleneck(self._around, bottleneck, self._train, batch_size=self._batch_size, seed=self._seed)
            found = accuracies(self._around, bottleneck, self._early_stop)
            lost = {name: round(100 * (self._reference[name] - right), 6) for name, right in found.items()}
            size = _codes_bytes(bottleneck.size_bytes)
            log.info(
                "%s: a bottleneck of %d bytes (%s in %d bits): %s points lost, of %d samples",
                stage.name,
                size,
                sides((*squeeze.places(shape), squeeze.channels)),
                squeeze.bits,
                ", ".join(f"{name} {points:.2f}" for name, points in lost.items()),
                len(self._early_stop),
            )
            yield Tried(bottleneck, size, max(lost.values()))


def _others(stage: StageSpec, sample: TensorSpec, sends: Sends) -> dict[Uplink, int]:
    """What a cut may send without a bottleneck, and the bytes of its body."""
    activation = sends.uplink("activation", sample)
    found = {activation: body_bytes(stage.activation, activation.dtype)} if stage.activation else {}
    if stage.inputs[0].stage is None:
        found[sends.uplink("sample", sample)] = body_bytes(sample, None)
    return found


def _codes_bytes(count: int) -> int:
    """Bytes of a request's body with so many bytes of codes."""
    return body_bytes(TensorSpec("activation", (count,), "uint8"), None)


def _room(most_bytes: int) -> int:
    """How many bytes of codes fit into a body of so many bytes."""
    room = most_bytes - _codes_bytes(1) + 1
    while room > 0 and _codes_bytes(room) > most_bytes:
        room -= 1
    return max(room, 0)
