from dataclasses import replace

import pytest

from branchy.core.record import record


@record
class Point:
    x: int
    y: int = 0


def test_a_record_is_a_dataclass_with_slots():
    assert Point(1) == Point(1, 0)
    assert len({Point(1), Point(1, 0)}) == 1
    assert replace(Point(1), y=2) == Point(1, 2)
    with pytest.raises(AttributeError):
        Point(1).z = 3


def test_the_type_checker_refuses_a_change(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    file = tmp_path / "change.py"
    file.write_text(
        "from branchy.core.messages import Hop\nhop = Hop('edge', None, None, None, 0.0, 0.0, 0.0)\nhop.tier = 'fog'\n"
    )
    said, _, code = mypy.run([str(file), "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent"])
    assert code == 1
    assert 'Property "tier" defined in "Hop" is read-only' in said
