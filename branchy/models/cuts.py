"""Where a Keras model can be cut in two: the places where one tensor carries everything, and a choice among them."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import Tensor, activation_of
from branchy.models.graph import Node, calls, carriers

AUTO = "auto"
_AUTO = re.compile(rf"{AUTO}(?::([1-9]\d?))?")
_AUTO_CUTS = 2

_NO_ACTIVATION = {"linear", "softmax", "logsoftmax", "sparsemax", "get", "serialize", "deserialize"}
_ACTIVATIONS = {name.replace("_", "").lower() for name in dir(keras.activations)} - _NO_ACTIVATION | {"prelu"}


@dataclass(frozen=True)
class Cut:
    """A place to cut.

    Attributes:
        layer: the layer or operation that gives the tensor.
        tensor: (batch, ...) float32, which alone goes on.
        values: how many numbers it has for one sample.
        flops_share: of the model's floating point operations, how many lie before it (0..1; estimated from
            the sizes of kernels and tensors).
    """

    layer: str
    tensor: Tensor
    values: int
    flops_share: float


@dataclass(frozen=True)
class Cuts:
    """A model's cuts: those that are offered, and why others are not.

    Attributes:
        offered: in the order in which they are computed.
        order: by the name of every layer and operation its position in that order.
        single: names of those whose tensor alone carries everything, offered or not.
    """

    offered: Sequence[Cut]
    order: Mapping[str, int]
    single: frozenset[str]

    def chosen(self, wanted: str) -> list[Cut]:
        """The cuts that `--cut` asks for.

        Args:
            wanted: `LAYER[,LAYER...]` in the model's order, or `auto[:N]` (see `_spread`).

        Returns:
            At least one, in the model's order.

        Raises:
            ArchitectureError: one is none of the model's, not offered, or out of order; or too few are there.
        """
        if not self.offered:
            raise ArchitectureError(
                "the model has no place where one tensor carries everything (after an activation, an add or a "
                "pooling): some tensor always passes by, such as a skip connection from the input; "
                "give an architecture function that returns a BranchyModel"
            )
        if match := _AUTO.fullmatch(wanted):
            return self._spread(int(match.group(1) or _AUTO_CUTS))
        found = [self._named(name.strip()) for name in wanted.split(",")]
        positions = [self.offered.index(cut) for cut in found]
        if sorted(set(positions)) != positions:
            raise ArchitectureError(
                f"--cut: expected different layers in the model's order, got {wanted}; they come in this order: "
                + ", ".join(self.offered[i].layer for i in sorted(set(positions)))
            )
        return found

    def _named(self, name: str) -> Cut:
        for cut in self.offered:
            if cut.layer == name:
                return cut
        if name not in self.order:
            close = difflib.get_close_matches(name, self.order, n=3) or [cut.layer for cut in self.offered[:3]]
            raise ArchitectureError(f"--cut: the model has no layer '{name}'; did you mean {', '.join(close)}?")
        before = [cut.layer for cut in self.offered if self.order[cut.layer] < self.order[name]][-1:]
        after = [cut.layer for cut in self.offered if self.order[cut.layer] > self.order[name]][:1]
        why = "it is not after an activation, an add or a pooling, or an activation follows it"
        if name not in self.single:
            why = "it does not carry everything: another tensor passes by it"
        raise ArchitectureError(f"--cut: cannot cut after '{name}': {why}; the nearest are {', '.join(before + after)}")

    def _spread(self, count: int) -> list[Cut]:
        """Cuts that part the FLOPs about evenly, at few bytes.

        For each border of count + 1 equal parts, among the cuts at most half a part away from it the
        one with the fewest values, the first of equals; where there is none, the nearest one left.
        """
        if count > len(self.offered):
            raise ArchitectureError(f"--cut auto:{count}: the model has only {len(self.offered)} places to cut")
        part, found = 1 / (count + 1), list[Cut]()
        for k in range(1, count + 1):
            start = self.offered.index(found[-1]) + 1 if found else 0
            left = self.offered[start : len(self.offered) - (count - k)]
            near = [cut for cut in left if abs(cut.flops_share - k * part) <= part / 2]
            found.append(
                min(near, key=lambda cut: cut.values)
                if near
                else min(left, key=lambda cut: abs(cut.flops_share - k * part))
            )
        return found


def find_cuts(source: Tensor, output: Tensor) -> Cuts:
    """The cuts of a graph without nested models.

    A cut is where one tensor carries everything, found by liveness (see `carriers`). Offered are those
    after an activation, a call that joins tensors (an add) or a pooling, unless an activation follows:
    convolution, normalisation and activation stay together, as an engine makes one operation of them.

    Args:
        source: what the model takes; what it comes from (preprocessing) is no place to cut.
        output: its logits.

    Returns:
        Cuts of float32 tensors whose shape is known but for the batch; none may be offered.
    """
    before = {id(node) for node in calls([source])}
    nodes = [node for node in calls([output]) if id(node) not in before]
    tensors = {id(t): t for node in nodes for t in (*node.input_tensors, *node.output_tensors)}
    steps = [([id(t) for t in node.input_tensors], [id(t) for t in node.output_tensors]) for node in nodes]
    single = [tensors[key] for key in carriers(steps, id(source), id(output))]
    names = _names(nodes)
    done, total = _flops_until(nodes)
    offered = [
        Cut(names[id(t)], t, math.prod(t.shape[1:]), done[id(t)] / total)
        for t in single
        if _is_offered(t, nodes) and t.dtype == "float32" and None not in t.shape[1:]
    ]
    order = {names[id(t)]: i for i, node in enumerate(nodes) for t in node.output_tensors}
    return Cuts(offered, order, frozenset(names[id(t)] for t in single))


def _names(nodes: Sequence[Node]) -> dict[int, str]:
    """By tensor the layer that gave it, with `:2` at its second call and so on."""
    found, times = dict[int, str](), Counter[str]()
    for node in nodes:
        name = str(node.operation.name)
        times[name] += 1
        number = f":{times[name]}" if times[name] > 1 else ""
        found.update((id(t), name + number) for t in node.output_tensors)
    return found


def _is_offered(tensor: Tensor, nodes: Sequence[Node]) -> bool:
    history = tensor._keras_history
    joins = len({id(t) for t in history.operation._inbound_nodes[history.node_index].input_tensors}) > 1
    pools = "pool" in type(history.operation).__name__.lower()
    followers = [node for node in nodes if any(t is tensor for t in node.input_tensors)]
    followed = all(_only_activates(node) for node in followers)
    return (activation_of(tensor) in _ACTIVATIONS or joins or pools) and not followed


def _only_activates(node: Node) -> bool:
    """Whether a call applies an activation and nothing else."""
    kind = type(node.operation).__name__.replace("_", "").lower()
    return kind == "activation" or kind in _ACTIVATIONS


def _flops_until(nodes: Sequence[Node]) -> tuple[dict[int, float], float]:
    """Floating point operations up to each tensor in the calls' order, and of all of them."""
    done, total = dict[int, float](), 0.0
    for node in nodes:
        total += flops(node)
        done.update((id(t), total) for t in node.output_tensors)
    return done, total


def flops(node: Node) -> float:
    """About how many floating point operations a call takes for one sample.

    Each weight of a kernel is multiplied and added once at each position of the output (of the input,
    where the convolution is transposed); each number of the output counts one.

    Args:
        node: one call of a layer or operation.
    """
    transposed = "Transpose" in type(node.operation).__name__
    places = (node.input_tensors if transposed else node.output_tensors)[0].shape[1:-1]
    kernels = [w for w in getattr(node.operation, "weights", ()) if len(w.shape) > 1]
    weights = sum(math.prod(w.shape) for w in kernels)
    return float(2 * weights * math.prod(places) + sum(math.prod(t.shape[1:]) for t in node.output_tensors))
