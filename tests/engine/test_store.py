"""Scores that are known are not run again, are never stale, and survive a crash."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import FileError
from pellucid.core.targets import Target
from pellucid.engine import store
from pellucid.engine.identity import bits, identity
from pellucid.engine.scoring import score
from pellucid.engine.store import Store
from pellucid.engine.targets import resolve
from pellucid.engine.variants import Variant
from pellucid.models.edits import Edit
from tests import plain
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("kept_scores")
IDS = plain.IDS


def loaded(shape: str = "llama") -> pellucid.Subject:
    return pellucid.load(TINY[shape]())


def without(subject: pellucid.Subject, **options: Any) -> Any:
    return pellucid.run("occlusion", subject, IDS, target=plain.TARGET, **options)


def test_equal_variants_are_run_once_across_methods_and_calls() -> None:
    subject = loaded()
    first = without(subject, replacement="delete")
    assert first.provenance.forwards == 7
    again = without(subject, replacement="delete")
    assert again.provenance.forwards == 0
    np.testing.assert_array_equal(first.scores, again.scores)
    shapley = pellucid.run(
        "shapley_values", subject, IDS, target=plain.TARGET, replacement="delete", exact=True
    )  # 64 coalitions: 6 of 5 units and the whole are known
    assert shapley.provenance.forwards == 64 - 7
    anew = pellucid.run("shapley_values", loaded(), IDS, target=plain.TARGET, replacement="delete", exact=True)
    assert anew.provenance.forwards == 64
    np.testing.assert_allclose(shapley.scores, anew.scores, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"target": 9}, {"target": plain.TARGET, "contrast": 9}, {"target": Target(plain.TARGET, measure="prob")},
        {"target": [9, 8]}, {"target": Target([9, 8], each=True)}, {"replacement": 3}, {"replacement": "zero"},
        {"replacement": "mean"},
    ],
    ids=str,
)  # fmt: skip
def test_another_question_is_another_key(options: dict[str, Any]) -> None:
    subject = loaded()
    without(subject)
    given: dict[str, Any] = {"target": plain.TARGET} | options
    found = pellucid.run("occlusion", subject, IDS, **given)
    fresh = pellucid.run("occlusion", loaded(), IDS, **given)
    whole_is_known = 1 if "replacement" in options else 0
    assert found.provenance.forwards == fresh.provenance.forwards - whole_is_known
    np.testing.assert_allclose(found.scores, fresh.scores, atol=1e-6)


def test_another_prompt_with_equal_ids_in_other_segments_is_another_key() -> None:
    from tests.tokenizers_for_tests import wordpiece

    tokenizer = wordpiece()
    subject = pellucid.load(_bert(len(tokenizer)), tokenizer)
    one, other = subject.encode("hello world"), subject.encode(("hello", "world"))
    readout = resolve(subject, one, 1)
    for tokens in (one, other):
        whole = Variant(tokens.ids, tuple(range(len(tokens))))
        with subject.recorded() as record:
            score(subject, tokens, readout, [whole])
        assert record.forwards == 1


def _bert(words: int) -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    return transformers.BertForSequenceClassification(config).eval()


def _optimiser_step(model: Any, kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW) -> None:
    optimiser = kind(model.parameters(), lr=0.05)
    model(input_ids=torch.tensor([IDS])).logits.square().mean().backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _one_bit(model: Any) -> None:
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data.view(-1).view(torch.int32)[5] ^= 1


def _rows_swapped(model: Any) -> None:
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data.copy_(weight.data.flip(0))


def _loaded_dict(model: Any, **options: Any) -> None:
    other = {name: value * 1.05 for name, value in model.state_dict().items()}
    model.load_state_dict(other, **options)


def _in_place(model: Any) -> None:
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.1)


def _replaced(model: Any) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.1)


def _module(model: Any) -> None:
    model.model.layers[0].mlp.act_fn = torch.nn.ReLU()


def _setting(model: Any) -> None:
    model.model.norm.variance_epsilon = 0.5


def _buffer(model: Any) -> None:
    model.model.rotary_emb.inv_freq.data.mul_(0.5)


def _hook(model: Any) -> None:
    model.model.layers[0].register_forward_hook(lambda module, args, output: output * 1.5)


def _forward(model: Any) -> None:
    native = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda hidden: 2 * native(hidden)


CHANGES: dict[str, Callable[[Any], None]] = {
    "in place": _in_place,
    "through .data": lambda model: model.model.layers[0].self_attn.q_proj.weight.data.mul_(1.2),
    "one entry through .data": lambda model: model.lm_head.weight.data[plain.TARGET, 3].add_(0.5) and None,
    "rows swapped through .data": _rows_swapped,
    "load_state_dict": _loaded_dict,
    "load_state_dict, assigned": lambda model: _loaded_dict(model, assign=True),
    "optimiser step": _optimiser_step,
    "SGD step": lambda model: _optimiser_step(model, torch.optim.SGD),
    "parameter replaced": _replaced,
    "module replaced": _module,
    "setting": _setting,
    "buffer": _buffer,
    "hook": _hook,
    "forward replaced": _forward,
    "dtype": lambda model: model.to(torch.bfloat16) and None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_any_change_scores_equal_a_fresh_subjects(change: str) -> None:
    subject = loaded()
    before = without(subject)
    CHANGES[change](subject.model)
    found = without(subject)
    fresh = without(pellucid.load(subject.model) if change not in ("hook", "forward replaced") else _view(subject))
    assert found.provenance.forwards == fresh.provenance.forwards == 7
    np.testing.assert_allclose(found.scores, fresh.scores, atol=1e-6)
    assert not np.allclose(found.scores, before.scores, atol=1e-6)  # the change matters, so stale scores would show


def _view(subject: pellucid.Subject) -> pellucid.Subject:
    """Return a Subject of the same live model without what the first one remembers."""
    return pellucid.Subject(
        subject.model, None, subject.layout, kind=subject.kind, head=subject.head, name=subject.name
    )


def test_one_bit_is_seen_and_undoing_it_finds_the_first_scores() -> None:
    subject = loaded()
    first, key = without(subject), identity(subject)
    _one_bit(subject.model)
    assert identity(subject) != key
    assert without(subject).provenance.forwards == 7
    _one_bit(subject.model)
    assert identity(subject) == key
    again = without(subject)
    assert again.provenance.forwards == 0
    np.testing.assert_array_equal(again.scores, first.scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool])
@pytest.mark.parametrize("size", [1, 7, 2048, 4096, 12_345])
def test_every_bit_of_a_tensor_counts(dtype: torch.dtype, size: int) -> None:
    value = torch.randint(0, 2, (size,)).to(dtype)
    assert bits([value]) == bits([value.clone()])
    seen = {bits([value])}
    for place in {0, size // 2, size - 1}:
        other = value.clone()
        other[place] = 1 - other[place] if dtype is not torch.bool else not other[place]
        seen.add(bits([other]))
    assert len(seen) == 1 + len({0, size // 2, size - 1})
    wide = torch.stack([value, 1 - value] if dtype is not torch.bool else [value, ~value], 1)
    assert bits([wide[:, 0]]) == bits([value])  # not contiguous
    assert bits([value[None]]) != bits([value])


def test_an_order_counts() -> None:
    value = torch.randn(10_000)
    for i, j in ((0, 1), (0, 2), (1, 4097), (0, 4096), (5, 9_999)):
        other = value.clone()
        other[i], other[j] = value[j], value[i]
        assert bits([other]) != bits([value])


def test_an_edited_view_is_another_model() -> None:
    subject = loaded()
    plainly = without(subject)
    value = torch.ones(32)
    edited = subject.with_(Edit("blocks.1.mlp.out", "add", value))
    found = without(edited)
    assert found.provenance.forwards == 7
    assert not np.allclose(found.scores, plainly.scores)
    assert without(edited).provenance.forwards == 0
    assert without(subject).provenance.forwards == 0
    value.mul_(3)  # an edit's own tensor may change, too
    assert without(edited).provenance.forwards == 7
    function = subject.with_(Edit("blocks.1.mlp.out", lambda value, context: value + 1))
    assert [without(function).provenance.forwards for _ in range(2)] == [7, 7]


def test_a_function_is_asked_every_time() -> None:
    subject, factor = loaded(), [1.0]
    readout = Target(lambda logits: factor[0] * logits[:, 3])
    first = pellucid.run("occlusion", subject, IDS, target=readout)
    factor[0] = 2.0
    second = pellucid.run("occlusion", subject, IDS, target=readout)
    assert second.provenance.forwards == 7
    np.testing.assert_allclose(second.scores, 2 * first.scores, atol=1e-5)


def test_a_black_box_is_asked_every_time_unless_its_run_is_resumable(tmp_path: Path) -> None:
    asked: list[str] = []

    def count(texts: list[str]) -> list[float]:
        asked.extend(texts)
        return [float(len(text)) for text in texts]

    for expected in (3, 3):
        asked.clear()
        pellucid.run("occlusion", pellucid.load(count), "one two")
        assert len(asked) >= expected
    for expected in (3, 0):
        subject = pellucid.load(count)
        subject.encode("two" * expected + " other")  # ids are given in the order of sight, which must not matter
        asked.clear()
        with store.resumable(tmp_path / "scores"):
            found = pellucid.run("occlusion", subject, "one two", target=0)
        assert len(asked) == expected
        np.testing.assert_allclose(found.scores, [3, 4])


def test_a_kept_score_cannot_be_changed_from_outside() -> None:
    subject = loaded()
    tokens = subject.encode(IDS)
    readout = resolve(subject, tokens, plain.TARGET)
    whole = Variant(tokens.ids, tuple(range(len(tokens))))
    first = score(subject, tokens, readout, [whole])
    value = float(first[0, 0])
    first[:] = 99
    assert float(score(subject, tokens, readout, [whole])[0, 0]) == value


def test_the_store_is_bounded_and_forgets_the_longest_unused() -> None:
    kept = Store(most_bytes=3 * (store.ENTRY_BYTES + 8))
    for i in range(3):
        kept.put(bytes([i]), np.array([float(i)]))
    assert kept.get(bytes([0])) is not None
    kept.put(bytes([3]), np.array([3.0]))
    assert kept.get(bytes([1])) is None
    assert kept.get(bytes([0])) is not None
    assert kept.bytes == 3 * (store.ENTRY_BYTES + 8) == sum(store.ENTRY_BYTES + v.nbytes for v in kept.known.values())


def test_entry_bytes_are_what_an_entry_takes() -> None:
    import tracemalloc

    kept = Store()
    tracemalloc.start()
    for i in range(20_000):
        kept.put(i.to_bytes(16, "little"), np.array([float(i)]))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.6 < taken / kept.bytes < 1.4


def test_unused_runs_and_keeps_nothing() -> None:
    subject = loaded()
    with store.unused():
        without(subject)
    assert without(subject).provenance.forwards == 7
    with store.unused():
        assert without(subject).provenance.forwards == 7


def test_few_tokens_of_a_large_model_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "is_cheap", lambda subject: False)
    subject = loaded()
    assert [without(subject).provenance.forwards for _ in range(2)] == [7, 7]  # 36 tokens
    long = IDS * 6
    found = [pellucid.run("occlusion", subject, long, target=plain.TARGET).provenance.forwards for _ in range(2)]
    assert found[1] == 0 < found[0]


def test_explain_runs_no_variant_twice_and_says_the_same_again() -> None:
    subject = loaded()
    options: dict[str, Any] = {"target": plain.TARGET, "methods": ["occlusion", "shapley_values"], "seed": 1}
    with subject.recorded() as with_store:
        first = pellucid.explain(subject, IDS, **options)
    with subject.recorded() as known:
        again = pellucid.explain(subject, IDS, **options)
    other = loaded()
    with store.unused(), other.recorded() as without_store:
        anew = pellucid.explain(other, IDS, **options)
    assert known.forwards <= 2 < with_store.forwards < without_store.forwards  # the prompt is read for what it predicts
    assert with_store.forwards <= 2 + 2**6  # 6 units have no more coalitions
    for one, two in ((first, again), (first, anew)):
        assert one.notes == two.notes
        for a, b in zip(one.results, two.results, strict=True):
            np.testing.assert_allclose(a.values, b.values, atol=1e-5)
            assert [e.name for e in a.evidence] == [e.name for e in b.evidence]
    assert {e.name for e in first.results[0].evidence} & {"deletion"}
    assert [r.provenance.forwards for r in again.results] == [0, 0]  # provenance counts what was run


def test_two_threads_with_different_edits_share_one_store() -> None:
    subject = loaded()
    views = [subject, subject.with_(Edit("blocks.0.attn.out", "scale", 0.5))]
    with store.unused():
        alone = [without(view).scores for view in views]
    found: list[tuple[int, np.ndarray]] = []

    def work(which: int) -> None:
        found.extend([(which, without(views[which]).scores) for _ in range(10)])

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for which, scores in found:
        np.testing.assert_allclose(scores, alone[which], atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    from tests.bad_input.small import left_alone

    subject = loaded()
    with left_alone(subject.model):
        without(subject)
        without(subject)


def test_a_copy_of_the_model_has_the_same_identity() -> None:
    subject = loaded()
    assert identity(subject) == identity(pellucid.load(copy.deepcopy(subject.model)))


def test_a_file_of_another_kind_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(FileError, match="holds no scores"), store.resumable(path):
        pass
    assert path.read_text() == "my notes"
