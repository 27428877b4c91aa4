"""The bench scores what it says: exact methods reach 1.0, wrong answers do not, nothing is left out in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.cli import main
from pellucid.core.catalogue import Entry, entries
from pellucid.core.errors import InputError
from pellucid.core.results import Graph, Scores
from pellucid.evaluate import truth as module
from pellucid.evaluate._known import arguments, compare, known, questions
from pellucid.evaluate.truth import COLUMNS, OVERALL, _figures, bench_truth, brief


def rows(table: Any) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in table.rows]


def entry(name: str) -> Entry:
    return next(e for e in entries() if e.name == name)


@pytest.mark.slow
def test_exact_methods_reach_one_and_others_print_as_they_are() -> None:
    table = bench_truth(["shapley_values", "activation_patching", "attention_rollout"], prompts=2)
    found = {(r["question"], r["model"], r["method"]): r for r in rows(table)}
    for (question, model, method), row in found.items():
        if method in ("shapley_values (exact)", "activation_patching"):
            assert row["correlation"] == row["area"] == 1.0, (question, model, method)
    rollout = found["input", OVERALL, "attention_rollout"]
    assert rollout["area"] < 0.95
    assert rollout["compared"] == "size"
    assert all(row["passes"] > 0 for row in found.values()), "what another method has scored is not free"
    assert rollout["area_low"] <= rollout["area"] <= rollout["area_high"]
    assert {question for question, _, _ in found} == {"input", "rationale", "shortcut", "head", "neuron", "place"}
    assert all(model != "tiny-classifier" for question, model, _ in found if question not in ("rationale", "shortcut"))
    assert len(brief(table).rows) == sum(model == OVERALL for _, model, _ in found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_method_is_scored_or_named_with_the_reason() -> None:
    table = bench_truth(prompts=1)
    scored = {row["method"].split(" (")[0] for row in rows(table)}
    assert {e.name for e in entries() if questions(e)} <= scored | _left_out(table)


def _left_out(table: Any) -> set[str]:
    said = " ".join(evidence.summary for evidence in table.evidence)
    return {e.name for e in entries() if e.name in said}


def test_the_planted_word_and_the_words_of_opinion_are_found() -> None:
    found = rows(
        bench_truth(["occlusion", "gradient_norm"], ["tiny-classifier", "tiny-classifier-shortcut"], prompts=6)
    )
    for row in found:
        if row["method"] == "occlusion":
            assert row["area"] > 0.95
            assert row["chance"] < 0.35
    assert {row["question"] for row in found} == {"rationale", "shortcut"}


def test_the_rationale_is_what_counts_as_relevant_where_it_is_given() -> None:
    [model] = known(["tiny-classifier-shortcut"])
    item = model.prompts[0]
    day = item["rationale"].index(1)
    first = np.zeros(len(item["truth"]))
    first[day] = 1.0
    assert _figures(compare("shortcut", item, Scores(values=first, axes=("unit",))))[1] == 1
    assert sum(value != 0 for value in item["truth"]) > 1
    assert _figures(compare("shortcut", item, Scores(values=1 - first, axes=("unit",))))[1] < 0.2


def test_a_method_that_refuses_one_prompt_is_left_out_on_that_model_and_named() -> None:
    table = bench_truth(["shapley_values"], ["truth/fact", "tiny-classifier"], prompts=8)
    names = {(row["model"], row["method"]) for row in rows(table)}
    assert ("tiny-classifier", "shapley_values (exact)") not in names
    assert {("truth/fact", "shapley_values (exact)"), ("tiny-classifier", "shapley_values")} <= names
    assert "shapley_values (exact) on tiny-classifier (Exact Shapley values were asked for" in table.evidence[0].summary


@pytest.mark.slow
def test_exact_methods_reach_one_on_every_prompt_of_every_answer() -> None:
    constructed = [name for name in pellucid.zoo.names() if name.startswith("truth/")]
    for method in ("shapley_values", "activation_patching"):
        for row in rows(bench_truth([method], constructed, prompts=None)):
            if row["method"] != "shapley_values":
                assert row["correlation"] == row["area"] == 1.0, row


def test_removing_one_word_at_a_time_misses_redundant_words() -> None:
    given = rows(bench_truth(["occlusion", "shapley_values"], ["truth/redundant"], prompts=24))
    found = {row["method"]: row for row in given}
    assert found["shapley_values (exact)"]["area"] == 1.0
    assert found["occlusion"]["area"] < 0.9
    assert found["occlusion"]["correlation"] < 0.6


def test_same_seed_same_table() -> None:
    first, second = (bench_truth(["occlusion"], ["zoo:truth/fact"], prompts=4, seed=3) for _ in range(2))
    assert first.rows == second.rows


@pytest.mark.usefixtures("kept_scores")
def test_passes_do_not_depend_on_what_was_run_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that scores every input first does not make those after it cheaper."""
    both = [entry("shapley_values"), entry("occlusion")]
    passes = []
    for order in (both, both[::-1], both[1:]):
        monkeypatch.setattr(module, "entries", lambda order=order: order)
        table = bench_truth(models=["truth/fact"], prompts=2)
        passes.append({row["method"]: row["passes"] for row in rows(table)})
    assert passes[0] == passes[1]
    assert passes[2]["occlusion"] == passes[0]["occlusion"] > 0


def test_a_wrong_answer_scores_low() -> None:
    [model] = known(["truth/majority"])
    item = next(prompt for prompt in model.prompts if 0.0 in prompt["truth"])
    truth = np.array(item["truth"])
    perfect = Scores(values=3 * truth, axes=("unit",))
    assert _figures(compare("input", item, perfect))[:2] == (1, 1)
    turned = Scores(values=-truth, axes=("unit",))
    assert _figures(compare("input", item, turned))[0] == pytest.approx(-1)
    unsigned = Scores(values=np.abs(truth), axes=("unit",), sign="larger matters more")
    assert _figures(compare("input", item, unsigned))[:2] == (1, 1)
    reversed_ = Scores(values=np.abs(truth).max() - np.abs(truth), axes=("unit",), sign="larger matters more")
    assert _figures(compare("input", item, reversed_))[0] == pytest.approx(-1)


def test_an_answer_about_other_parts_is_refused() -> None:
    [model] = known(["truth/majority"])
    for values in (np.ones(2), np.full(len(model.prompts[0]["truth"]), np.nan)):
        with pytest.raises(InputError, match="finite ones are asked for"):
            compare("input", model.prompts[0], Scores(values=values, axes=("unit",)))


def test_methods_are_asked_with_the_stated_replacement_and_contrast() -> None:
    [model] = known(["truth/majority"])
    item = model.prompts[0]
    given = arguments(entry("occlusion"), model, item, "input", 0)
    assert given["replacement"] == model.replacement == 2
    assert (given["target"], given["contrast"]) == (item["target"], item["contrast"])
    assert arguments(entry("integrated_gradients"), model, item, "input", 0)["baseline"] == 2
    rollout = arguments(entry("attention_rollout"), model, item, "input", 0)
    assert rollout["target"] == pellucid.Target(item["target"], item["contrast"])
    demanding = replace(entry("occlusion"), parameters=({"name": "labels", "required": True},))
    with pytest.raises(InputError, match="needs labels"):
        arguments(demanding, model, item, "input", 0)


def test_new_methods_are_picked_up_by_their_metadata() -> None:
    pair, prompt = entry("activation_patching"), entry("occlusion")
    assert questions(prompt) == ("input",)
    assert questions(replace(prompt, axes=("unit", "other_unit"))) == ()
    assert questions(replace(prompt, takes="dataset")) == ()
    assert questions(pair) == ("head", "neuron", "place")
    assert questions(replace(pair, parameters=())) == ("place",)
    assert questions(replace(prompt, axes=("layer", "head"))) == ("head",)
    assert questions(replace(pair, produces="graph", axes=())) == ("edge",)


def test_edges_are_compared_by_the_names_of_the_answer() -> None:
    [model] = known(["truth/induction"])
    item = model.pairs[0]
    effects = {(source, target): effect for source, target, effect in item["edges"]}
    names = sorted({name for edge in effects for name in edge} | {"blocks.0.attn.1"})
    edges = [(a, b) for a in names for b in names if a != b]
    graph = Graph(
        nodes=tuple({"id": name} for name in names),
        sources=np.array([names.index(a) for a, _ in edges]),
        targets=np.array([names.index(b) for _, b in edges]),
        weights=np.array([-effects.get(edge, 0.0) for edge in edges]),
    )
    assert _figures(compare("edge", item, graph))[:2] == (1, 1)
    with pytest.raises(InputError, match="not named"):
        compare("edge", item, replace(graph, nodes=tuple({"id": str(i)} for i in range(len(names)))))


def test_a_method_that_cannot_be_scored_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    demanding = replace(
        entry("occlusion"),
        parameters=(*entry("occlusion").parameters, {"name": "labels", "required": True, "default": None}),
    )
    monkeypatch.setattr(module, "entries", lambda: [demanding])
    table = bench_truth(models=["truth/fact"], prompts=1)
    assert table.rows == ()
    assert "occlusion (it needs labels" in table.evidence[0].summary


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match="truth/fact"):
        bench_truth(models=["truth/fakt"])
    with pytest.raises(InputError, match="did you mean 'occlusion'"):
        bench_truth(methods=["oclusion"])


def test_the_command_prints_only_json(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["bench", "truth", "--models", "truth/fact", "--methods", "occlusion", "--prompts", "2"]
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["columns"] == list(COLUMNS)
    assert main(asked) == 0
    assert "occlusion" in capsys.readouterr().out
    assert main([*asked[:3], "nothing"]) == 2
