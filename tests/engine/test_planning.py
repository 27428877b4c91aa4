"""Batches halved when memory runs out, progress, cancelling, estimates."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import Cancelled, ResourceError
from pellucid.engine import cone, planning, reading, scoring, trie
from pellucid.engine.planning import controlled, estimate, in_batches
from tests import plain
from tests.bad_input.small import left_alone
from tests.tiny import TINY

METHODS = ("occlusion", "integrated_gradients", "shapley_values", "smoothgrad")


@pytest.fixture
def subject() -> pellucid.Subject:
    return pellucid.load(TINY["llama"]().double())


def limited(monkeypatch: pytest.MonkeyPatch, rows_at_most: int) -> list[int]:
    """Let every batch of more rows run out of memory; return the list of the sizes that were tried."""
    tried: list[int] = []
    native = reading.forward

    def forward(subject: Any, rows: Any, **options: Any) -> Any:
        tried.append(len(rows))
        if len(rows) > rows_at_most:
            raise ResourceError(f"The model ran out of memory on {len(rows)} rows; use a smaller batch.")
        return native(subject, rows, **options)

    monkeypatch.setattr(reading, "forward", forward)
    plainly(monkeypatch)
    return tried


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off what shares work between rows, so that every row is a whole forward."""
    for module in (scoring, cone):
        monkeypatch.setattr(module, "trusted", lambda subject: False)


@pytest.mark.parametrize("method", [*METHODS, "activation_patching"])
@pytest.mark.parametrize("rows", [1, 3])
def test_halved_batches_give_equal_results(
    subject: pellucid.Subject, method: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"target": plain.TARGET}
    if method == "activation_patching":
        options["corrupt"] = [11, 42, 8, 23, 64, 5]
    whole = pellucid.run(method, subject, plain.IDS, **options)
    tried = limited(monkeypatch, rows)
    halved = pellucid.run(method, subject, plain.IDS, **options)
    np.testing.assert_allclose(halved.scores, whole.scores, atol=1e-10)
    assert max(tried) > rows  # it did run out
    assert halved.provenance.forwards == whole.provenance.forwards  # a batch that failed is not counted


@pytest.mark.parametrize("method", ["occlusion", "activation_patching"])
def test_shared_work_that_does_not_fit_is_done_plainly(
    subject: pellucid.Subject, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"corrupt": [11, 42, 8, 23, 64, 5]} if method == "activation_patching" else {}
    whole = pellucid.run(method, subject, plain.IDS, target=plain.TARGET, **options)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trie, "run", full)
    monkeypatch.setattr(cone, "onward", full)
    found = pellucid.run(method, subject, plain.IDS, target=plain.TARGET, **options)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-6)
    assert found.provenance.forwards <= whole.provenance.forwards + 1  # the run that the cone started from


def test_what_is_measured_once_per_model_is_not_counted(subject: pellucid.Subject) -> None:
    """The first call must not differ from the second in what its provenance says it cost."""
    first = pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    second = pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    assert first.provenance.forwards == second.provenance.forwards == 7
    with subject.recorded() as record:
        estimate(subject, "F", {}, 6)
    assert record.forwards == 0


def test_one_row_that_does_not_fit_is_an_error(subject: pellucid.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0)
    with left_alone(subject.model), pytest.raises(ResourceError, match="ran out of memory on 1 rows"):
        pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)


def test_answers_come_in_the_order_of_the_items() -> None:
    rng = np.random.default_rng(0)
    items = [int(n) for n in rng.integers(1, 40, size=200)]
    sizes: list[tuple[int, int]] = []

    def run(batch: list[int]) -> list[int]:
        sizes.append((len(batch), max(batch)))
        if len(batch) > 7:
            raise ResourceError("Too many; use fewer.")
        return [item**2 for item in batch]

    assert in_batches(items, items, run, tokens_per_batch=400) == [item**2 for item in items]
    assert all(count * longest <= 400 for count, longest in sizes)
    assert in_batches([], [], run) == []


def test_a_row_longer_than_a_batch_is_run_alone() -> None:
    assert in_batches(["a", "b"], [900, 800], lambda batch: [item.upper() for item in batch], tokens_per_batch=100) == [
        "A",
        "B",
    ]


def test_progress_reaches_its_total(subject: pellucid.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    tried = limited(monkeypatch, 2)
    with controlled(lambda done, total: seen.append((done, total))):
        pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (7, 7)
    assert len(seen) > 2
    assert len(tried) > len(seen)
    pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    assert seen[-1] == (7, 7)  # outside the context nobody is told


def test_cancelling_stops_between_two_batches(subject: pellucid.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, seen = threading.Event(), list[int]()

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done >= 4:
            cancel.set()

    tried = limited(monkeypatch, 2)
    with left_alone(subject.model), controlled(progress, cancel), pytest.raises(Cancelled, match="between two batches"):
        pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    assert seen[-1] < 7
    ran = len(tried)
    with controlled(None, cancel), pytest.raises(Cancelled):
        pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET)
    assert len(tried) == ran  # an event that is set stops a run before its first batch
    assert pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET).scores.shape == (6,)


def test_cancelling_from_another_thread(subject: pellucid.Subject) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    try:
        with controlled(None, cancel), pytest.raises(Cancelled):
            pellucid.run("shapley_values", subject, plain.IDS * 8, target=plain.TARGET, permutations=100_000)
    finally:
        timer.join()


def test_estimates_count_the_passes_and_grow_with_them(subject: pellucid.Subject) -> None:
    one = estimate(subject, "steps*(F+B)", {"steps": 10}, 6)
    assert (one.forwards, one.backwards) == (10, 10)
    ten = estimate(subject, "steps*(F+B)", {"steps": 100}, 6)
    assert one.seconds > 0
    assert one.bytes > 0
    assert ten.seconds == pytest.approx(10 * one.seconds)
    assert estimate(subject, "steps*F", {"steps": 10}, 6).seconds == pytest.approx(one.seconds / 3)
    assert estimate(subject, "steps*F", {"steps": 10}, 6).bytes < one.bytes


def test_an_estimate_is_near_what_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model large enough for arithmetic to dominate; the bound is wide because test machines are busy."""
    import transformers

    plainly(monkeypatch)
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        vocab_size=500,
        pad_token_id=0,
    )
    subject = pellucid.load(transformers.LlamaForCausalLM(config).eval())
    prompt = list(range(5, 69))
    expected = estimate(subject, "(units+1)*F", {"units": 64}, 64)
    found = pellucid.run("occlusion", subject, prompt, target=7, replacement=3)
    assert found.provenance.forwards == expected.forwards
    assert expected.seconds / 6 < found.provenance.seconds < expected.seconds * 6


def test_counts_are_those_of_the_cost(subject: pellucid.Subject) -> None:
    with subject.recorded() as record:
        pellucid.run("integrated_gradients", subject, plain.IDS, target=plain.TARGET, steps=5)
    assert (record.forwards, record.backwards) == (8, 7)
    assert planning.estimate(subject, "(steps+3)*F+(steps+2)*B", {"steps": 5}, 6).forwards == 8
    assert all(p.grad is None for p in subject.model.parameters())
    assert torch.is_grad_enabled()
