"""Which network a training is to have: found, built and cut; and where a model can be cut."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, get_args

from branchy.core.cascade import DType, InputSpec, TensorSpec
from branchy.core.statistics import wilson
from branchy.datasets import Dataset, Part
from branchy.errors import UsageError
from branchy.models.wanted import SEARCHED, Sends, Wanted
from branchy.reports.text import text_table
from branchy.runner.calibration import exit_logits
from branchy.runner.request_sizes import body_bytes, request_sizes, sides, sizes_table

if TYPE_CHECKING:
    from branchy.models.splitting import Network

log = logging.getLogger(__name__)


def build_network(arch: str, data: Dataset, wanted: Wanted, tiers: tuple[str, ...] | None, sends: Sends) -> Network:
    """Find an architecture, give it exits where it has none, and cut it.

    Args:
        arch: see `branchy.models.zoo.find`.
        data: for whose samples and classes.
        wanted: how a plain Keras model gets its exits.
        tiers: the stages' names; None leaves the architecture's.
        sends: what the cuts shall send.

    Raises:
        ArchitectureError: there is no such architecture, or it cannot be used as wanted.
        UsageError: there are more or fewer cuts than uplinks.
    """
    from branchy.models import branching, own, splitting, zoo

    build = own.adapted(zoo.find(arch), data.input, wanted)
    built = branching.build(build, data.input.tensor.shape, len(data.labels), tiers)
    uplinks = sends.by_cut(len(built.stages) - 1, data.input.tensor)
    network = splitting.split(built, data.input, uplinks)
    own_code = [stage.spec.name for stage in (*network.stages, network.full) if stage.spec.custom_objects]
    if own_code:
        log.warning(
            "%s: layers of your own, or a Lambda, which Keras does not load from a file: run these in LiteRT",
            ", ".join(own_code),
        )
    return network


def as_it_came(network: Network, *parts: Part) -> str:
    """How right a network's last exit is on some parts of the data, for people."""
    from branchy.models.splitting import runner

    full = network.full.spec
    right = samples = 0
    for part in parts:
        logits = exit_logits([full], {full.name: runner(network.full)}, part, "the model as it came")[full.name]
        right += int((logits.argmax(axis=1) == part.labels).sum())
        samples += len(part)
    low, high = wilson(right, samples)
    return f"{right / samples:.1%} right of {samples} held-out samples (95 %: {low:.1%} to {high:.1%})"


def cuts_text(arch: str, shape: tuple[int, ...], classes: int, wanted: Wanted, sends: Sends) -> str:
    """A table of the places where a model can be cut, for a terminal.

    Args:
        arch: see `branchy.models.zoo.find`.
        shape: (height, width, channels) of a sample of uint8 pixels.
        classes: how many an architecture function is called with.
        wanted: the cuts to mark.
        sends: what the cuts shall send.

    Returns:
        Where a Keras model can be cut; or the stages of an architecture that says itself where it is cut.

    Raises:
        ArchitectureError: there is no such architecture, it is no Keras model that can be cut, or a cut
            is wanted of one that says itself where it is cut.
    """
    from branchy.models import branching, own, splitting, zoo
    from branchy.models.branching import called
    from branchy.models.cuts import find_cuts

    sample = InputSpec(TensorSpec("sample", shape, "uint8"), 0.0, 255.0)
    if set(sends.uplinks) & set(SEARCHED):
        raise UsageError(f"--uplink: training finds out what {' and '.join(SEARCHED)} are; expected activation, sample")
    architecture = zoo.find(arch)
    made = called(architecture.build, shape, classes)
    if isinstance(made, branching.BranchyModel) and wanted.cut is None:
        built = branching.build(lambda *_: made, shape, classes, None)
        uplinks = sends.by_cut(len(built.stages) - 1, sample.tensor)
        return _stages_text(arch, splitting.split(built, sample, uplinks), sample)
    flat = own.flattened(made, sample, architecture.preprocessing or "none", wanted)
    cuts = find_cuts(flat.source, flat.output)
    chosen = cuts.chosen(wanted.cut or "auto")
    rows = []
    for cut in cuts.offered:
        activation = TensorSpec("activation", tuple(cut.tensor.shape[1:]))
        sizes = [f"{body_bytes(activation, dtype):,}" for dtype in get_args(DType)]
        rows.append((cut.layer, sides(activation.shape), "*" * (cut in chosen), *sizes, f"{cut.flops_share:.1%}"))
    raw = body_bytes(sample.tensor, None)
    heading = (
        f"{arch} can be cut in {len(rows)} places; bytes of a request's body there, by dtype; a raw sample "
        f"{sides(shape)} has {raw:,}"
    )
    return f"{heading}\n\n{text_table(('layer', 'shape', 'chosen', *get_args(DType), 'FLOPs before'), rows, left=3)}"


def _stages_text(arch: str, network: Network, sample: InputSpec) -> str:
    stages = [stage.spec for stage in network.stages]
    rows = [(s.name, f"{s.parameters:,}", f"{s.flops:,}") for s in (*stages, network.full.spec)]
    heading = (
        f"{arch} says itself where it is cut, in {len(stages)} stages; with its exits it has "
        f"{network.trained.count_params():,} parameters"
    )
    sizes = sizes_table(request_sizes(sample, stages))
    return "\n\n".join([heading, text_table(("stage", "parameters", "FLOPs"), rows), sizes])
