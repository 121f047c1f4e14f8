"""Hypothesis strategies for what travels."""

from typing import get_args

from hypothesis import strategies as st

from branchy.core.messages import Answer, Hop, Reason


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


texts = st.text(max_size=30).filter(is_utf8)
shares = st.floats(0, 1)
amounts = st.floats(0, 1e9)
hops = st.builds(
    Hop,
    tier=texts,
    exit=st.none() | texts,
    index=st.none() | st.integers(0, 2**70),
    confidence=st.none() | shares,
    queue_ms=amounts,
    compute_ms=amounts,
    total_ms=amounts,
    bytes_up=st.integers(0, 2**70),
)


@st.composite
def answers(draw):
    status = draw(st.sampled_from(["ok", "rejected", "error"]))
    known = {"label": draw(texts), "index": draw(st.integers(0, 2**70)), "confidence": draw(shares)}
    return Answer(
        request=draw(texts),
        status=status,
        reason=draw(st.sampled_from(get_args(Reason))),
        tier=draw(texts),
        model=draw(texts),
        **(known if status == "ok" else {}),
        probabilities=tuple(draw(st.lists(shares, max_size=4))),
        exit=draw(st.none() | texts),
        hops=tuple(draw(st.lists(hops, max_size=3))),
        detail=draw(st.none() | texts),
        certified=draw(st.booleans()),
    )
