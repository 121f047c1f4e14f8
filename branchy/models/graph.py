"""The graph of a Keras model: nested models inlined, its calls in order, and the tensors that carry all of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

from branchy.models.backend import keras
from branchy.models.branching import Tensor

V = TypeVar("V", bound=Hashable)

Node = Any
"""One call of a layer or operation: `operation`, `input_tensors`, `output_tensors`."""


def is_graph(model: Any) -> bool:
    """Whether a model is functional or Sequential, with no `call` of its own that would run instead of its graph."""
    own_call = not type(model).call.__module__.startswith("keras.")
    return isinstance(model, keras.Model) and not own_call and (_is_sequential(model) or hasattr(model, "_nodes"))


def inlined(model: Any, inputs: Any, *, as_in_use: bool = False) -> Any:
    """Call a functional or Sequential model, and each model in it, layer by layer.

    The layers and their weights are the model's own; they get one more call.

    Args:
        model: for which `is_graph` holds.
        inputs: symbolic tensors in the structure that the model takes.
        as_in_use: leave dropout out, which does nothing but in training.
    """

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if as_in_use and isinstance(operation, keras.layers.Dropout):
            return args[0]
        if isinstance(operation, keras.Model) and is_graph(operation):
            return inlined(operation, args[0], as_in_use=as_in_use)
        return operation(*args, **kwargs)

    if _is_sequential(model):
        for layer in model.layers:
            inputs = call(layer, inputs)
        return inputs
    # What keras.models.clone_model does, without the new layers.
    return model._run_through_graph(inputs, call_fn=call)


def calls(outputs: Iterable[Tensor]) -> list[Node]:
    """All calls that some tensors come from.

    Args:
        outputs: symbolic tensors.

    Returns:
        Each once, after those that it takes from.
    """
    found: dict[int, Node] = {}
    todo = [(_node(tensor), False) for tensor in outputs]
    while todo:
        node, ready = todo.pop()
        if ready:
            found.setdefault(id(node), node)
        elif id(node) not in found:
            todo.append((node, True))
            todo += [(_node(tensor), False) for tensor in reversed(node.input_tensors)]
    return list(found.values())


def name_apart(nodes: Iterable[Node]) -> None:
    """Give operations that share a name different ones, as a Keras model needs; the first keeps its own."""
    taken: dict[str, int] = {}
    for operation in {id(node.operation): node.operation for node in nodes}.values():
        name, number = operation.name, 2
        while taken.setdefault(operation.name, id(operation)) != id(operation):
            operation.name = f"{name}_{number}"
            number += 1


def carriers(steps: Sequence[tuple[Sequence[V], Sequence[V]]], source: V, sink: V) -> list[V]:
    """The values at which one carries everything on the way from a source to a sink, in order.

    By liveness, as compilers know it (Aho et al., Compilers, 2006, section 9.2.5): a value is alive from the
    step that makes it to the last that takes it. Where only one is alive after the step that made it, every
    way from source to sink goes through it: it dominates the sink (Prosser, 1959).

    Args:
        steps: what each takes and makes, in an order in which it can be computed; each leads to the sink.
        source: what is there at the start.
        sink: the result; not among those returned.

    Returns:
        In the order of the steps that make them, neither the source nor the sink.
    """
    last_use = {value: i for i, (taken, _) in enumerate(steps) for value in taken} | {sink: len(steps)}
    found, busy_until = [], last_use.get(source, -1)
    for i, (_, made) in enumerate(steps):
        alive = [value for value in made if last_use.get(value, -1) > i]
        if busy_until <= i and len(alive) == 1 and alive[0] != sink:
            found.append(alive[0])
        busy_until = max([busy_until, *(last_use[value] for value in alive)])
    return found


def _is_sequential(model: Any) -> bool:
    return isinstance(model, keras.Sequential)


def _node(tensor: Tensor) -> Node:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]
