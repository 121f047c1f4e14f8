import os
import re
import time
from uuid import RFC_4122, UUID

import pytest

from branchy.runner import events
from branchy.runner.events import Stamper, new_traceparent, uuid7


def test_uuid7_is_version_7_of_the_rfc_variant_and_carries_the_time():
    before = time.time_ns() // 1_000_000
    made = UUID(uuid7())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == RFC_4122
    assert before <= made.int >> 80 <= after


def test_uuid7_is_the_rfc_example_when_time_and_randomness_are_its_own(monkeypatch):
    # RFC 9562, appendix A.6: 2022-02-22T19:22:22.000Z, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    fraction_ns = -(-0xCC3 * 1_000_000 // 4096)
    monkeypatch.setattr(events.time, "time_ns", lambda: 0x017F22E279B0 * 1_000_000 + fraction_ns)
    monkeypatch.setattr(events._random, "getrandbits", lambda bits: 0x18C4DC0C0C07398F)
    assert uuid7() == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize("ns", [0, 999_999, 1_000_000, 1_700_000_000_123_456_789])
def test_uuid7_keeps_its_version_at_the_edges_of_the_clock(monkeypatch, ns):
    monkeypatch.setattr(events.time, "time_ns", lambda: ns)
    made = UUID(uuid7())
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == ns // 1_000_000


def test_uuid7_grows_with_time_even_within_a_millisecond(monkeypatch):
    made = []
    for ns in range(0, 3_000_000, 1_000):
        monkeypatch.setattr(events.time, "time_ns", lambda ns=ns: ns)
        made.append(uuid7())
    assert made == sorted(made)


def test_uuid7_does_not_repeat():
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_a_traceparent_is_valid_and_fresh():
    first, second = new_traceparent(), new_traceparent()
    shape = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")
    assert shape.fullmatch(first)
    assert shape.fullmatch(second)
    assert first.split("-")[1] != second.split("-")[1]


def test_a_stamper_stamps_each_event_with_a_fresh_id_its_source_and_the_time():
    stamper = Stamper("/branchy/lenet/device")
    first, second = stamper(), stamper()
    assert first.id != second.id
    assert first.source == second.source == "/branchy/lenet/device"
    assert abs(time.time() - first.time_s) < 60


def test_a_forked_child_makes_other_ids_than_its_parent():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, uuid7()[-12:].encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 12).decode() != uuid7()[-12:]
