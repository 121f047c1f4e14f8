from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import own_keras
import pytest

Run = Callable[..., tuple[int, str, str]]
OWN = f"{own_keras.__file__}:build"


def test_the_places_to_cut_are_listed_with_shape_bytes_and_share_and_the_choice_is_marked(run: Run) -> None:
    code, out, _ = run("cuts", OWN, "--shape", "32,32,3", "--cut", "block_out")
    rows = {line.split()[0]: line.split() for line in out.splitlines()[4:]}
    assert code == 0
    assert "a raw sample 32 x 32 x 3 has" in out
    # Keras numbers the layers that have no name of their own, over all tests of a process.
    assert [name.rstrip("_0123456789") for name in rows] == ["stem", "block_out", "global_average_pooling2d"]
    assert [name for name, row in rows.items() if "*" in row] == ["block_out"]
    assert rows["stem"][1:6] == ["8", "x", "8", "x", "8"]
    for column, value_bytes in ((6, 4), (7, 2), (8, 1)):
        assert int(rows["stem"][column].replace(",", "")) == pytest.approx(8 * 8 * 8 * value_bytes, abs=250)
    assert 0 < float(rows["stem"][9].rstrip("%")) < float(rows["block_out"][-1].rstrip("%")) < 100


def test_an_architecture_that_says_where_it_is_cut_is_listed_by_stages(run: Run) -> None:
    code, out, _ = run("cuts", "b-lenet-paper", "--shape", "28,28,1")
    _, stages, requests = out.split("\n\n")
    assert code == 0
    assert "in 2 stages" in out
    assert [line.split()[0] for line in stages.splitlines()[2:]] == ["edge", "cloud", "full"]
    cut, sample = (line.split() for line in requests.splitlines()[2:])
    assert cut[:7] == ["edge", "activation", "15", "x", "15", "x", "5"]
    assert int(cut[9].replace(",", "")) == pytest.approx(15 * 15 * 5, abs=250)
    assert sample[:7] == ["device", "sample", "28", "x", "28", "x", "1"]


def test_a_cut_that_sends_the_sample_is_listed_with_it(run: Run) -> None:
    code, out, _ = run("cuts", "b-lenet-paper", "--shape", "28,28,1", "--uplink", "sample")
    assert code == 0
    assert "edge    sample 28 x 28 x 1" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["b-lenet", "--shape", "8,8,1", "--cut", "auto"], "says itself where it is cut"),
        (["nope", "--shape", "8,8,1"], "no architecture 'nope'"),
        ([OWN, "--shape", "8,8"], "expected height,width,channels, got '8,8'"),
        ([OWN, "--shape", "8,8,x"], "expected height,width,channels, got '8,8,x'"),
        ([OWN, "--shape", "32,32,3", "--cut", "stemm"], "did you mean stem"),
        (["b-lenet", "--shape", "8,8,1", "--uplink", "sample,sample,sample"], "one for each of 2 cuts"),
        (["b-lenet", "--shape", "8,8,1", "--uplink", "auto"], "expected activation, sample"),
        ([OWN, "--shape", "2,2,3"], "the architecture function failed"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("cuts", *arguments)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
