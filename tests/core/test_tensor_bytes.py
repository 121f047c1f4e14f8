from __future__ import annotations

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from branchy.core import tensor_bytes

TENSORS = st.dictionaries(
    st.text("ab.é", min_size=1, max_size=4),
    hnp.arrays(st.sampled_from(["u1", "<f2", "<f4", ">f4"]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(autouse=True)
def nothing_known():
    tensor_bytes._known.clear()
    tensor_bytes._written.clear()


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape)
        assert one[name].tobytes() == other[name].tobytes()


@given(TENSORS)
def test_it_writes_what_the_library_writes_whether_the_head_is_known_or_not(tensors):
    by_library = safetensors.numpy.save(tensors)
    changed = {name: np.zeros_like(array) for name, array in tensors.items()}
    tensor_bytes.dump(changed)
    assert tensor_bytes.dump(tensors) == by_library
    assert tensor_bytes.dump(changed) == safetensors.numpy.save(changed)


@given(TENSORS)
def test_it_reads_what_the_library_reads_whether_the_head_is_known_or_not(tensors):
    body = safetensors.numpy.save(tensors)
    tensor_bytes.load(safetensors.numpy.save({name: np.zeros_like(array) for name, array in tensors.items()}))
    same(tensor_bytes.load(body), safetensors.numpy.load(body))


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:9], lambda b: b""])
def test_a_known_head_before_too_few_or_too_many_bytes_is_refused(change):
    body = safetensors.numpy.save({"a": np.arange(6, dtype=np.float32)})
    tensor_bytes.load(body)
    with pytest.raises(safetensors.SafetensorError):
        tensor_bytes.load(change(body))


def test_metadata_in_a_head_is_no_tensor():
    body = safetensors.numpy.save({"a": np.ones(3, np.uint8)}, {"by": "another client"})
    for _ in range(2):
        same(tensor_bytes.load(body), {"a": np.ones(3, np.uint8)})


def test_what_is_remembered_is_bounded():
    for number in range(3 * tensor_bytes.HEADS_KEPT):
        tensor_bytes.load(tensor_bytes.dump({f"tensor {number}": np.zeros(1, np.uint8)}))
    tensor_bytes.load(tensor_bytes.dump({"long " * tensor_bytes.HEAD_BYTES: np.zeros(1, np.uint8)}))
    for known in (tensor_bytes._known, tensor_bytes._written):
        assert 0 < len(known) <= tensor_bytes.HEADS_KEPT
    assert max(map(len, tensor_bytes._known)) <= tensor_bytes.HEAD_BYTES
