"""What `make images` says and refuses; the building itself is not part of `make test`."""

from __future__ import annotations

import contextlib
import shutil
import stat
from pathlib import Path

import pytest
from images import building, checks, run
from images.building import Image

from branchy.errors import BranchyError, UsageError

OCI = {f"org.opencontainers.image.{name}": "x" for name in checks.LABELS}


def image(root: Path, **changes: object) -> Image:
    return Image("edge", root, {"User": "10001:10001", "Labels": OCI, **changes}, 200_000_000, 40.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "opt/branchy/lib").mkdir(parents=True)
    (tmp_path / "opt/branchy/lib/numpy.py").touch()
    return tmp_path


def test_what_is_missing_here_is_one_line_with_debians_names(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None if program in {"buildah", "unshare"} else "/bin/it")
    with pytest.raises(UsageError, match=r"not installed: buildah, util-linux \(Debian's names of the packages\)$"):
        building.check_machine()
    monkeypatch.setattr(shutil, "which", lambda program: "/bin/it")
    monkeypatch.setattr(building.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="expected to be root"):
        building.check_machine()


def test_a_program_that_fails_is_told_with_its_last_words():
    with pytest.raises(BranchyError, match=r"^sh -c failed: no room$"):
        building.run("sh", "-c", "echo no room >&2; exit 3")


def test_pip_in_a_build_gets_what_says_how_the_index_is_reached_and_nobody_else_may_read_it(tmp_path: Path):
    listed = (
        "global.index-url='https://me:secret@index.example/simple'\n"
        "global.find-links='/opt/wheels'\n"
        "global.cert='/etc/old.crt'\n"
        ":env:.cert='/etc/new.crt'\n"
        "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'\n"
    )
    flags = building.pip_flags(listed, tmp_path)
    secret = tmp_path / "pip.conf"
    assert flags == [f"--secret=id=pip,src={secret}", "--volume=/etc/new.crt:/etc/new.crt:ro"]
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text() == (
        "[global]\nindex-url = https://me:secret@index.example/simple\ncert = /etc/new.crt\n"
        "extra-index-url = \n https://a.example\n https://b.example\n"
    )
    assert building.pip_flags("", tmp_path) == flags[:1]


def test_tensorflow_and_keras_are_found_wherever_they_are(root: Path):
    (root / "opt/branchy/lib/tensorflow.py").touch()
    assert checks.has_no_tensorflow(image(root)) is None, "a module that a package has for those who have it"
    (root / "opt/branchy/lib/keras").mkdir()
    assert checks.has_no_tensorflow(image(root)) == "it holds /opt/branchy/lib/keras"


def test_an_edge_may_have_300_mb_over_its_base(root: Path):
    assert checks.is_small(image(root)) is None
    large = Image("edge", root, {}, 300_000_001, 1.0)
    assert checks.is_small(large) == "expected at most 300 MB over the base, got 300"


def test_its_user_is_not_root_and_may_write_nothing(root: Path):
    assert checks.user_may_write_nothing(image(root)) is None
    assert checks.user_may_write_nothing(image(root, User="0:0")) == "expected a user that is not root, got 0:0"
    (root / "opt/branchy/lib/numpy.py").chmod(0o666)
    assert checks.user_may_write_nothing(image(root)) == "its user may write /opt/branchy/lib/numpy.py"


@pytest.mark.parametrize("value", ["", "unknown", None])
def test_a_label_that_says_nothing_is_missing(root: Path, value: str | None):
    assert checks.has_labels(image(root)) is None
    labels = {**OCI, "org.opencontainers.image.revision": value}
    assert checks.has_labels(image(root, Labels=labels)) == "labels missing or empty: revision"


@pytest.mark.parametrize(("why", "code"), [(None, 0), ("went wrong", 1)])
def test_a_check_that_fails_is_in_the_table_and_in_the_exit_code(root: Path, why, code, monkeypatch, capsys):
    def build_and_check(results: list[run.Result], folder: Path, stack: contextlib.ExitStack) -> None:
        results.append(run.Result(image(root)))
        results[0].check({"user": lambda image: None, "size": lambda image: why})

    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "build_and_check", build_and_check)
    assert run.main() == code
    out = capsys.readouterr().out
    assert "edge   200 MB     40 s   user, size" in out
    assert ("size FAILED\nedge: size: went wrong\n" in out) == bool(code)


def test_a_build_that_fails_is_one_line_and_no_traceback(monkeypatch, capsys):
    def build_and_check(*_: object) -> None:
        raise BranchyError("buildah bud failed: no index")

    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "build_and_check", build_and_check)
    assert run.main() == 1
    assert capsys.readouterr().err.endswith("make images: buildah bud failed: no index\n")
