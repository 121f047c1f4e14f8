"""What docs/models.md says of the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchy.core.cascade import InputSpec, TensorSpec, Uplink
from branchy.models.branching import build
from branchy.models.splitting import split
from branchy.models.zoo import ZOO, find
from branchy.runner.request_sizes import body_bytes

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if line.startswith(("| `b-", "| `branchy-")) and line.count("|") == 8
]


def test_the_documents_table_has_the_whole_zoo() -> None:
    assert set(ZOO) <= {row[0] for row in ROWS}


@pytest.mark.parametrize(("name", "paper", "sample", "stages", "parameters", "mflops", "sent"), ROWS)
def test_the_documents_figures_of_an_architecture_are_those_of_its_graph(
    name: str, paper: str, sample: str, stages: str, parameters: str, mflops: str, sent: str
) -> None:
    shape = tuple(int(side) for side in sample.split(" x "))
    spec = InputSpec(TensorSpec("sample", shape, "uint8"), 0.0, 255.0)
    built = build(find(name).build, shape, 10, None)
    network = split(built, spec, [Uplink("activation", "float16")] * (len(built.stages) - 1))
    found = [stage.spec for stage in network.stages]
    assert paper
    assert stages == ", ".join(stage.name for stage in found)
    assert parameters == f"{network.full.spec.parameters:,}"
    assert mflops == ", ".join(_rounded(stage.flops) for stage in found)
    cuts = [stage.activation for stage in found if stage.activation is not None]
    assert sent == "; ".join(f"{body_bytes(cut, 'float16'):,}" for cut in cuts)


def _rounded(flops: int) -> str:
    """Millions, to three digits."""
    return f"{float(f'{flops / 1e6:.3g}'):,g}"
