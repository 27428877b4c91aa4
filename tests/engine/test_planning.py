"""Batches halved when memory runs out, progress, cancelling, estimates."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import Cancelled, ResourceError
from pellucid.engine import cone, memory, planning, probes, reading, scoring, trie
from pellucid.engine.fit import Fit, fit
from pellucid.engine.gradients import value_and_gradient
from pellucid.engine.planning import FREE_TOKENS, PADDING, controlled, estimate, in_batches
from pellucid.engine.probes import Setup
from pellucid.engine.readout import Part, Readout
from pellucid.engine.variants import whole
from tests import plain
from tests.bad_input.small import left_alone
from tests.tiny import TINY

NO_SETUP = Setup(0.0, 0, 0, 0, 0.0)
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


@pytest.mark.slow
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


def test_batches_are_hardly_padded_but_where_they_are_small() -> None:
    lengths, sizes = [6, 90, 91, 40, 120, 121, 300, 301, 5, 310, 119, 600, 7], list[list[int]]()

    def run(batch: list[int]) -> list[int]:
        sizes.append(batch)
        return batch

    assert in_batches(lengths, lengths, run) == lengths
    assert all(len(one) * max(one) <= max(FREE_TOKENS, PADDING * sum(one)) for one in sizes)
    assert [300, 301, 310] in sizes
    assert [600] in sizes


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
    assert ten.seconds > one.seconds
    assert estimate(subject, "steps*F", {"steps": 10}, 6).seconds < one.seconds
    assert estimate(subject, "steps*F", {"steps": 10}, 6).bytes < one.bytes


@pytest.mark.slow  # it compares seconds, which on a busy machine are anything
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
    assert (record.forwards, record.backwards) == (7, 5)
    assert planning.estimate(subject, "(steps+3)*F+(steps+2)*B", {"steps": 5}, 6).forwards == 8
    assert all(p.grad is None for p in subject.model.parameters())
    assert torch.is_grad_enabled()


def midsize(kind: str) -> pellucid.Subject:
    import transformers

    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            n_embd=64, n_layer=5, n_head=4, vocab_size=2000, n_positions=512, bos_token_id=0, eos_token_id=0
        )
        return pellucid.load(transformers.GPT2LMHeadModel(config).eval())
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=200, num_hidden_layers=5, num_attention_heads=4, vocab_size=2000,
        pad_token_id=0, attn_implementation=kind,
    )  # fmt: skip
    return pellucid.load(transformers.LlamaForCausalLM(config).eval())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdpa", "eager", "gpt2"])
def test_batches_take_the_memory_that_was_learned_from_smaller_ones(kind: str) -> None:
    """Counted on the engine's own calls at shapes that were not probed: longer, wider, with more targets."""
    subject = midsize(kind)
    for rows, length, targets, gradients in (
        (1, 400, 1, 0), (20, 30, 1, 0), (5, 100, 60, 0), (40, 12, 10, 0),
        (1, 300, 1, 1), (12, 40, 1, 1), (3, 90, 40, 1), (3, 60, 20, 20), (10, 16, 8, 8),
    ):  # fmt: skip
        each = gradients > 1
        prompt = subject.encode([5 + i % 90 for i in range(length - targets + 1)])
        ids = tuple(range(7, 7 + targets))
        readout = Readout("next", (Part(ids),), "log_prob", each, ("",) * len(ids if each else (0,)), "probe")
        points = torch.randn(rows, len(prompt), 64)

        def run(
            points: torch.Tensor = points, prompt: Any = prompt, readout: Readout = readout, graph: bool = gradients > 0
        ) -> object:
            if graph:
                return value_and_gradient(subject, prompt, readout, points)
            return scoring.score_plain(subject, prompt, readout, [whole(prompt)] * len(points))

        run()
        tokens = (1 + gradients) * length * rows if gradients else 0  # as the engine counts: many take other kernels
        expected = fit(subject, gradients > 0, tokens).bytes(rows, length, targets, gradients)
        assert 0.7 < memory.peak(run) / expected < 1.2, (rows, length, targets, gradients)


def test_batches_are_smaller_where_less_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = midsize("sdpa")
    plainly(monkeypatch)
    monkeypatch.setattr(planning, "WORTH_MEASURING", 0)
    prompt = [5 + i % 90 for i in range(48)]
    batches: list[int] = []

    def read(*given: Any, **named: Any) -> Any:
        batches.append(len(given[3]))
        return reading.read(*given, **named)

    monkeypatch.setattr(scoring, "read", read)
    amply = pellucid.run("occlusion", subject, prompt, target=7, replacement=3)
    most = max(batches)
    batches.clear()
    row = fit(subject, False, 0).bytes(1, 48)
    monkeypatch.setattr(memory, "available", lambda device=None: int(5.5 * row / planning.SHARE))
    tightly = pellucid.run("occlusion", subject, prompt, target=7, replacement=3)
    assert max(batches) == 5 < most
    np.testing.assert_allclose(tightly.scores, amply.scores, atol=1e-5)


def test_a_batch_ends_where_more_rows_are_not_faster() -> None:
    """A row of 10 tokens at 1 ms a token, 100 ms a call: 333 rows share the call to within 3 % of a row."""
    none = np.zeros(11)
    forward = none.copy()
    forward[0], forward[4] = 0.1, 0.001
    found = Fit(1, forward, none, none, none, none, 0, NO_SETUP)
    assert found.seconds(7, 10) == pytest.approx(0.1 + 0.07)
    assert found.tokens_at_full_speed(10) == pytest.approx(0.1 / (0.03 * 0.001))
    assert planning.best_tokens(found, 10) == 4096
    forward[0] = 0.0
    assert planning.best_tokens(found, 10) == planning.FEWEST_TOKENS


def test_as_many_rows_as_fit_are_found() -> None:
    none = np.zeros(11)
    in_blocks, at_output = none.copy(), none.copy()
    in_blocks[0], in_blocks[4], at_output[6] = 1000.0, 8.0, 100.0
    found = Fit(1, none, none, in_blocks, in_blocks, at_output, 0, NO_SETUP)
    for limit in (1, 1500, 2000, 9999, 123_456):
        rows = found.rows(limit, 10, 1)
        assert found.bytes(rows, 10, 1) <= limit or rows == 1
        assert found.bytes(rows + 1, 10, 1) > limit


@pytest.mark.parametrize(("points", "gradients", "expected"), [(4, 1, 1400), (6, 1, 1500), (8, 1, 2000), (4, 2, 2000)])
def test_weights_packed_for_the_way_back_take_the_place_of_a_graph_that_is_let_go(
    points: int, gradients: int, expected: int, monkeypatch: pytest.MonkeyPatch, subject: pellucid.Subject
) -> None:
    """Batches of 4 rows that hold 1000 bytes, weights of 400 and, for the way back, 600: 1400 until the first way back.

    A second batch of 2 rows meets all weights, 500 + 1000; where several gradients go back, the graph is kept.
    """
    none = np.zeros(11)
    in_blocks = none.copy()
    in_blocks[4] = 25.0
    found = Fit(1, none, none, in_blocks, in_blocks, none, 0, Setup(0.0, 450, 600, 50, 100.0))
    monkeypatch.setattr(planning, "fit", lambda *_: found)
    said = planning.estimate(
        subject, "steps*(F+gradients*B)", {"steps": points, "gradients": gradients}, 10, gradients=gradients,
        tokens_per_batch=40,
    )  # fmt: skip
    assert said.bytes == pytest.approx(expected)


def test_measuring_leaves_the_model_and_the_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = midsize("sdpa")
    with left_alone(subject.model), subject.recorded() as record:
        fit(subject, False, 0)
        fit(subject, True, 0)
    assert (record.forwards, record.backwards) == (0, 0)
    monkeypatch.setattr(probes, "most_bytes", lambda *_: pytest.fail("the model was measured twice"))
    fit(subject, True, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bert-classifier", "bert-masked-lm", "t5", "bart", "mixtral", "gemma2", "albert", "deberta-v2"]
)
def test_every_kind_of_model_can_be_measured(name: str) -> None:
    subject = pellucid.load(TINY[name]())
    for graph in (False, True):
        found = fit(subject, graph, 0)
        assert found.seconds(8, 20, 1, int(graph)) > 0
        assert found.bytes(64, 20) > found.bytes(1, 20) > 0
