"""The table of a run is what its metrics say one by one, each explanation and each forward is made once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Evidence
from pellucid.evaluate.intervals import over_examples
from pellucid.evaluate.over_data import Evaluation, evaluate_dataset
from tests.evaluate.over_data.cases import ASKED, METHODS, METRICS, reviews

COUNT = 5


@pytest.fixture(scope="module")
def subject() -> Any:
    return pellucid.load("zoo:tiny-classifier")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return reviews(COUNT)


@pytest.fixture(scope="module")
def found(subject: Any, rows: list[dict[str, Any]]) -> Evaluation:
    return evaluate_dataset(subject, rows, methods=METHODS, metrics=METRICS, **ASKED)


def test_the_table_equals_metrics_called_one_by_one(subject: Any, rows: list[Any], found: Evaluation) -> None:
    for index, row in enumerate(rows):
        target = Target(int(subject_prediction(subject, row["text"])), measure="prob")
        scores = {name: pellucid.run(name, subject, row["text"], target=target) for name in METHODS}
        for i, (name, own) in enumerate(scores.items()):
            asked: dict[str, Any] = {"scores": own, "target": target}
            others = [one for other, one in scores.items() if other != name]
            expected = [
                pellucid.run("comprehensiveness", subject, row["text"], **asked, orders=3).values["value"],
                pellucid.run("leave_one_out_correlation", subject, row["text"], **asked).values["value"],
                pellucid.run("token_f1", own, row["rationale"]).values["value"],
                np.mean([pellucid.run("feature_agreement", own, one, top=3).values["value"] for one in others]),
            ]
            assert found.values[index, i] == pytest.approx(np.array(expected), abs=1e-5)


def subject_prediction(subject: Any, text: str) -> int:
    import torch

    given = subject.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return int(subject.model(**given).logits.argmax())


def test_intervals_equal_a_bootstrap_by_hand(found: Evaluation) -> None:
    values = found.values[:, 0, 0]
    rng = np.random.default_rng(0)
    means = [values[rng_row].mean() for rng_row in rng.integers(COUNT, size=(2000, COUNT))]
    low, high = np.quantile(means, [0.025, 0.975])
    cell = found.cells["occlusion", "comprehensiveness"].values
    assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((values.mean(), low, high))
    row = found.table().rows[0]
    assert row[:3] == ("occlusion", "comprehensiveness", "higher")
    assert row[3:6] == pytest.approx((values.mean(), low, high))
    one_by_one = [Evidence("", "", numbers) for numbers in found.numbers("comprehensiveness", "occlusion")]
    assert found.cells["occlusion", "comprehensiveness"] == over_examples("comprehensiveness", one_by_one)
    assert found.chance("leave_one_out_correlation") == 0


def test_differences_are_those_of_the_means(found: Evaluation) -> None:
    for metric, first, second, difference, p, corrected, better in found.significance().rows:
        cells = [found.cells[name, metric].values["value"] for name in (first, second)]
        assert difference == pytest.approx(cells[0] - cells[1])
        assert p <= corrected
        assert bool(better) == (corrected <= 0.05)
    assert len(found.tests) == 3 * len(METRICS)


@pytest.mark.usefixtures("kept_scores")
def test_nothing_is_explained_or_run_twice(
    subject: Any, rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pellucid.evaluate.over_data import run as module

    called: Counter[str] = Counter()
    plain = module.function

    def counted(name: str) -> Any:
        def run(*given: Any, **named: Any) -> Any:
            called[name] += 1
            return plain(name)(*given, **named)

        return run

    monkeypatch.setattr(module, "function", counted)
    asked: dict[str, Any] = {"methods": METHODS, "metrics": METRICS, "record": tmp_path / "record", **ASKED}
    first = evaluate_dataset(subject, rows[:3], **asked)
    expected = {**dict.fromkeys(METHODS, 3), **dict.fromkeys(METRICS, 3 * len(METHODS))}
    expected["feature_agreement"] *= len(METHODS) - 1  # with each of the others
    assert called == expected
    called.clear()
    with subject.recorded() as record:
        again = evaluate_dataset(subject, rows[:3], **asked)
    assert (again.computed, called, record.forwards) == (0, {}, 0)
    np.testing.assert_array_equal(again.values, first.values)
    more = evaluate_dataset(subject, rows, **{**asked, "metrics": (*METRICS, "sufficiency")})
    assert called["occlusion"] == COUNT - 3
    assert called["comprehensiveness"] == (COUNT - 3) * len(METHODS)
    assert called["sufficiency"] == COUNT * len(METHODS)
    np.testing.assert_array_equal(more.values[:3, :, :-1], first.values)


@pytest.mark.usefixtures("kept_scores")
def test_five_deletion_metrics_of_two_methods_run_no_input_twice(rows: list[Any]) -> None:
    from torch.nn.modules.module import register_module_forward_hook

    subject, seen = pellucid.load("zoo:tiny-classifier"), Counter[tuple[int, ...]]()
    embedding, pad = subject.model.get_input_embeddings(), subject.tokenizer.pad_token_id

    def note(module: Any, given: Any, _: Any) -> None:
        if module is embedding:
            seen.update(tuple(int(i) for i in row if i != pad) for row in given[0])

    metrics = ("comprehensiveness", "sufficiency", "deletion_area", "insertion_area", "leave_one_out_correlation")
    hook = register_module_forward_hook(note)
    try:
        found = evaluate_dataset(subject, rows[:1], methods=["occlusion", "rise"], metrics=metrics, orders=3)
    finally:
        hook.remove()
    assert found.computed == 1 + 2 + 2 * len(metrics)
    whole = tuple(subject.encode(rows[0]["text"]).ids)
    reviews_seen = {ids: count for ids, count in seen.items() if ids[0] == whole[0]}  # others measure the machine
    assert len(reviews_seen) > 100
    assert {ids for ids, count in reviews_seen.items() if count > 1} <= {whole}  # asked for what the model predicts


def test_what_fails_is_left_out_with_its_reason(subject: Any) -> None:
    rows = [*reviews(2), {"text": "I found the garden lovely.", "rationale": ["absent"]}]
    found = evaluate_dataset(subject, rows, methods=["occlusion"], metrics=["token_f1"])
    assert np.isnan(found.values[2, 0, 0])
    assert not np.isnan(found.values[:2]).any()
    [(method, metric, count, reason)] = found.failures()
    assert (method, metric, count) == ("occlusion", "token_f1", 1)
    assert "'absent' of the rationale is not in the text" in reason
    assert found.table().rows[0][-2:] == (2, 1)


def test_generated_answers_and_perplexity_beside_deletion() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    rows = [{"text": "The capital of France is"}, {"text": "The capital of Italy is", "target": " Rome"}]
    found = evaluate_dataset(
        subject, rows, methods=["occlusion", "gradient_x_input"], metrics=["comprehensiveness"], generate=3, orders=2
    )
    assert found.metric_names == ("comprehensiveness", "removal_perplexity")
    assert subject.tokenizer.decode(found.questions[0]["ids"]) == " Paris."
    assert found.questions[1]["words"] == "' Rome'"
    assert not np.isnan(found.values).any()
    scores = found.scores(0, "occlusion")
    assert scores is not None
    target = Target(tuple(found.questions[0]["ids"]), kind="continuation")
    plain = pellucid.run("occlusion", subject, rows[0]["text"], target=target)
    np.testing.assert_allclose(scores.values, plain.values, atol=1e-5)


def test_why_there_is_no_perplexity_is_said(found: Evaluation) -> None:
    assert "zoo:tiny-classifier is no causal language model" in found.notes[0]


def test_labels_can_be_explained(subject: Any, rows: list[Any]) -> None:
    found = evaluate_dataset(
        subject, [{**rows[0], "label": 1 - rows[0]["label"]}], methods=["occlusion"], metrics=["log_odds"],
        explain="label",
    )  # fmt: skip
    assert found.questions[0]["ids"] == [1 - found.questions[0]["predicted"]]
    assert found.accuracy == 0


def test_black_boxes() -> None:
    subject = pellucid.load(lambda texts: [float(text.count("good")) for text in texts])
    found = evaluate_dataset(
        subject, ["a good film", "good good"], methods=["occlusion", "lime"], metrics=["comprehensiveness"], unit="word"
    )
    assert found.values[0, 0, 0] == pytest.approx(1.0)


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"methods": ["occlusio"]}, "did you mean 'occlusion'"),
    ({"methods": ["logit_lens"]}, "methods that are compared give one score per unit"),
    ({"methods": []}, "No method was named"),
    ({"metrics": ["roar"]}, "has no value per example"),
    ({"metrics": ["occlusion"]}, "occlusion is a method"),
    ({"metrics": ["iou_f1"]}, "no example has one"),
    ({"settings": {"lime": {"samples": 3}}}, "'lime', which is not among"),
    ({"settings": {"occlusion": {"sample": 3}}}, "occlusion has no parameter 'sample'"),
    ({"explain": "gold"}, "no target 'gold'"),
    ({"explain": "label"}, "Example 1 has no label"),
    ({"generate": 3}, "is a classifier and generates nothing"),
    ({"limit": 0}, "limit must be"),
)


@pytest.mark.parametrize(("more", "said"), BAD)
def test_bad_questions_are_refused_before_anything_is_run(subject: Any, more: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"methods": ["occlusion"], "metrics": ["comprehensiveness"], **more}
    with pytest.raises(InputError, match=said):
        evaluate_dataset(subject, ["I found the garden lovely."], **asked)


def test_a_method_that_the_model_cannot_do_is_refused() -> None:
    subject = pellucid.load(lambda texts: [1.0 for _ in texts])
    with pytest.raises(CapabilityError, match="gradient_x_input"):
        evaluate_dataset(subject, ["a"], methods=["gradient_x_input"], metrics=["comprehensiveness"])
