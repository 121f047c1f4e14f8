"""What is in a bundle, as plain data (for `--json`) and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from branchy.core.cascade import ExitSettings, StageSpec
from branchy.core.statistics import wilson
from branchy.reports.text import listed, text_table
from branchy.runner.request_sizes import RequestSize, body_bytes, request_sizes, sizes_table
from branchy.store.bundle import Bundle

Data = Mapping[str, Any]


def describe(bundle: Bundle) -> Data:
    """What is in a bundle, as JSON takes it: whole numbers, text, lists and maps."""
    manifest, spec = bundle.manifest, bundle.spec
    samples, _ = bundle.golden(spec.full.name)
    sample = spec.input.tensor
    return {
        "name": spec.name,
        "digest": bundle.digest,
        "path": str(bundle.path),
        "size_bytes": sum({path: digest.size_bytes for path, digest in manifest.all_files()}.values()),
        "labels": list(spec.labels),
        "input": asdict(spec.input) | {"body_bytes": body_bytes(sample, None)},
        "stages": [_describe_stage(stage) for stage in (*spec.stages, spec.full)],
        "requests": [asdict(size) for size in request_sizes(spec.input, spec.stages, samples)],
        "splits": {name: asdict(split) for name, split in manifest.splits.items()},
        "training": asdict(manifest.training),
        "certificate": None if manifest.certificate is None else asdict(manifest.certificate),
        "promise": None if manifest.certificate is None else manifest.certificate.promise(spec),
    }


def text(data: Data) -> str:
    """What `describe` gave, for a terminal."""
    sizes = [RequestSize(**size) for size in data["requests"]]
    return "\n\n".join([_heading(data), _stage_table(data["stages"]), sizes_table(sizes), _file_table(data["stages"])])


def _describe_stage(stage: StageSpec) -> Data:
    data = asdict(stage)
    data["uplink"] = None
    if stage.uplink is not None and stage.activation is not None:
        data["uplink"] = asdict(stage.uplink) | {"body_bytes": body_bytes(stage.activation, stage.uplink.dtype)}
    return data


def _heading(data: Data) -> str:
    training, tensor = data["training"], data["input"]["tensor"]
    lines = {
        "bundle": f"{data['name']}, {len(data['labels'])} classes, {size_text(data['size_bytes'])}",
        "digest": data["digest"],
        "classes": listed(data["labels"]),
        "input": f"{_tensor(tensor)} in {data['input']['low']:g}..{data['input']['high']:g}, "
        f"{data['input']['body_bytes']:,} bytes a request",
        "trained": f"on {training['dataset']} with seed {training['seed']} by branchy {training['branchy_version']}",
        "command": training["command"],
        "samples": ", ".join(f"{name} {split['samples']:,}" for name, split in data["splits"].items()),
        "promise": data["promise"] or "nothing is promised of the thresholds",
    }
    return "\n".join(f"{name:8} {value}" for name, value in lines.items())


def _stage_table(stages: list[Data]) -> str:
    header = ("stage", "input", "sends up", "parameters", "FLOPs")
    rows = []
    for stage in stages:
        uplink = stage["uplink"]
        sends = f"{uplink['kind']} {tuple(stage['activation']['shape'])} as {uplink['dtype']}" if uplink else "-"
        rows.append((stage["name"], _tensor(stage["input"]), sends, f"{stage['parameters']:,}", f"{stage['flops']:,}"))
    return text_table(header, rows, left=3)


def _file_table(stages: list[Data]) -> str:
    header = ("stage", "format", "file", "leaves at", "size", "ms", "temperature", "accuracy", "95 % interval")
    rows = []
    for stage in stages:
        for fmt, file in stage["files"].items():
            exits = None if file["exit"] is None else ExitSettings(**file["exit"])
            always = not stage["successors"]
            rule, *measured = _exit_cells(exits, always)
            size, took = size_text(file["size_bytes"]), ms_text(file["compute_ms"])
            rows.append((stage["name"], fmt, file["path"], rule, size, took, *measured))
    return text_table(header, rows, left=4)


def _exit_cells(exits: ExitSettings | None, always: bool) -> tuple[str, ...]:
    if exits is None:
        return ("no exit", "-", "-", "-")
    interval = "-"
    if exits.accuracy is not None and exits.samples:
        low, high = wilson(round(exits.accuracy * exits.samples), exits.samples)
        interval = f"{low:.1%} to {high:.1%}"
    accuracy = "-" if exits.accuracy is None else f"{exits.accuracy:.1%}"
    return ("always" if always else exits.rule, f"{exits.temperature:.3f}", accuracy, interval)


def _tensor(tensor: Data) -> str:
    return f"{tensor['name']} {tuple(tensor['shape'])} {tensor['dtype']}"


def ms_text(ms: float | None) -> str:
    """A computing time for people; a dash where it was not measured."""
    return "-" if ms is None else f"{ms:.3f}"


def size_text(size_bytes: int) -> str:
    """A file's size for people."""
    return f"{size_bytes:,} B" if size_bytes < 10_000 else f"{size_bytes / 1e3:,.0f} kB"
