from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from branchy.core.messages import EncodedSample
from branchy.core.tier_events import Submit
from branchy.errors import DatasetError, EngineError, MissingExtraError
from branchy.runner.executor import QUICK_S, Executor


class Doubling:
    closed = False

    def run(self, batch):
        if batch[0, 0] == 99:
            raise EngineError("this batch cannot be run")
        return {"logits": batch * 2.0}

    def close(self):
        self.closed = True


def decode(sample: EncodedSample) -> np.ndarray:
    if sample.data == b"bad":
        raise DatasetError("damaged image")
    return np.asarray([7.0])


@pytest.fixture
def bench() -> Iterator[tuple[Executor, queue.SimpleQueue, Doubling]]:
    done: queue.SimpleQueue = queue.SimpleQueue()
    engine = Doubling()
    executor = Executor({("m", "edge"): engine}, decode, done.put)
    yield executor, done, engine
    executor.close()


def computed(bench, *inputs):
    executor, done, _ = bench
    return executor.submit(Submit(5, "m", "edge", inputs)) or done.get(timeout=20)


def test_a_batch_is_stacked_run_and_reported_with_its_number_and_times(bench):
    event = computed(bench, np.asarray([1.0]), np.asarray([2.0]))
    assert event.work == 5
    assert event.outputs["logits"].tolist() == [[2.0], [4.0]]
    assert event.started <= event.finished
    assert event.failures == {}


def test_an_image_that_cannot_be_decoded_fails_alone(bench):
    good, bad = EncodedSample("image/png", b"good"), EncodedSample("image/png", b"bad")
    event = computed(bench, np.asarray([1.0]), bad, good)
    assert event.failures == {1: "damaged image"}
    assert event.outputs["logits"].tolist() == [[2.0], [14.0]]
    event = computed(bench, bad)
    assert (event.failures, event.outputs) == ({0: "damaged image"}, {})


def test_an_image_fails_alone_where_nothing_can_decode_it(bench, monkeypatch):
    def decode(sample):
        raise MissingExtraError("reading images", "images")

    monkeypatch.setattr(bench[0], "_decode", decode)
    event = computed(bench, np.asarray([1.0]), EncodedSample("image/png", b"good"))
    assert "pip install 'branchy[images]'" in event.failures[1]
    assert event.outputs["logits"].tolist() == [[2.0]]


def test_a_model_that_fails_fails_its_batch_and_the_worker_goes_on(bench):
    event = computed(bench, np.asarray([99.0]), np.asarray([1.0]))
    assert list(event.failures) == [0, 1]
    assert "this batch cannot be run" in event.failures[0]
    assert computed(bench, np.asarray([1.0])).failures == {}


def test_a_stage_that_was_not_loaded_fails_its_batch(bench):
    executor, done, _ = bench
    executor.submit(Submit(6, "other", "edge", [np.asarray([1.0])]))
    assert list(done.get(timeout=20).failures) == [0]


def test_closing_it_frees_the_engines_and_may_be_done_twice(bench):
    executor, _, engine = bench
    executor.close()
    executor.close()
    assert engine.closed


@pytest.mark.parametrize(("took_s", "by_caller"), [(0.0001, True), (0.5, False)])
def test_what_is_known_to_be_quick_is_run_by_the_caller_and_the_rest_by_the_thread(took_s, by_caller):
    threads, done = [], queue.SimpleQueue()

    class Engine(Doubling):
        def run(self, batch):
            threads.append(threading.current_thread().name)
            return super().run(batch)

    ticks = itertools.count()
    executor = Executor({("m", "edge"): Engine()}, decode, done.put, clock=lambda: next(ticks) * took_s)
    for by_thread in (True, not by_caller):
        at_once = executor.submit(Submit(5, "m", "edge", [np.asarray([1.0])]))
        assert (at_once is None) == by_thread
        assert (at_once or done.get(timeout=20)).work == 5
    executor.close()
    assert threads == ["executor", threading.current_thread().name if by_caller else "executor"]


def test_a_batch_of_many_that_are_quick_one_by_one_goes_to_the_thread():
    threads, done = [], queue.SimpleQueue()

    class Engine(Doubling):
        def run(self, batch):
            threads.append(threading.current_thread().name)
            return super().run(batch)

    ticks = itertools.count()
    executor = Executor({("m", "edge"): Engine()}, decode, done.put, clock=lambda: next(ticks) * QUICK_S / 4)
    for batch in (1, 8):
        executor.submit(Submit(5, "m", "edge", [np.asarray([1.0])] * batch))
        done.get(timeout=20)
    executor.close()
    assert threads == ["executor", "executor"]


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "among tensors"])
def test_an_image_is_decoded_by_the_thread_however_quick_the_stage_is(others):
    decoded_by, done, now = [], queue.SimpleQueue(), [0.0]

    def decode_slowly(sample: EncodedSample) -> np.ndarray:
        decoded_by.append(threading.current_thread().name)
        now[0] += 0.8
        return decode(sample)

    executor = Executor({("m", "edge"): Doubling()}, decode_slowly, done.put, clock=lambda: now[0])
    tensor, image = np.asarray([1.0]), EncodedSample("image/jpeg", b"good")
    executor.submit(Submit(1, "m", "edge", [tensor]))
    assert done.get(timeout=20).work == 1
    assert executor.submit(Submit(2, "m", "edge", [*[tensor] * others, image])) is None
    assert done.get(timeout=20).work == 2
    assert decoded_by == ["executor"]
    at_once = executor.submit(Submit(3, "m", "edge", [tensor]))
    assert at_once is not None, "how long the image took says nothing of a tensor"
    executor.close()


class Held(Doubling):
    """Runs no batch to its end before it may."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.started, self.may_end, self.error = threading.Event(), threading.Event(), error

    def run(self, batch):
        self.started.set()
        assert self.may_end.wait(20)
        if self.error is not None:
            raise self.error
        return super().run(batch)


def test_it_says_how_long_the_batch_at_hand_has_been_running():
    now, done, engine = [100.0], queue.SimpleQueue(), Held()
    executor = Executor({("m", "edge"): engine}, decode, done.put, clock=lambda: now[0])
    assert executor.busy_s == 0.0
    executor.submit(Submit(5, "m", "edge", [np.asarray([1.0])]))
    assert engine.started.wait(20)
    now[0] = 103.5
    assert executor.busy_s == 3.5
    engine.may_end.set()
    done.get(timeout=20)
    now[0] = 200.0
    assert executor.busy_s == 0.0
    executor.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_of_its_batch_leaves_it_busy():
    now, engine = [100.0], Held(SystemExit())
    executor = Executor({("m", "edge"): engine}, decode, lambda computed: None, clock=lambda: now[0])
    executor.submit(Submit(5, "m", "edge", [np.asarray([1.0])]))
    engine.may_end.set()
    executor._thread.join(20)
    now[0] = 103.5
    assert executor.busy_s == 3.5
