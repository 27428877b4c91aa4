"""Facts read from the files of the field, on small files written here and on the real ones where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import pellucid
from pellucid.core.errors import FileError, InputError
from pellucid.core.facts import Fact
from pellucid.evaluate.edit_data import counterfact_cases, relation_cases, tiny_lm_cases, tiny_lm_texts
from pellucid.evaluate.prove_edit import prove_edit
from pellucid.zoo import world

DATA = Path(os.environ.get("PELLUCID_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
TABLE = """statement,label,relation,subject,target,true_target
x,1,{} speaks,Ann,French,French
x,0,{} speaks,Ann,Greek,French
x,0,{} speaks,Bob,Danish,French
x,0,{} speaks,Cid,Danish,Czech
"""


def test_a_table_of_true_and_false_statements(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(TABLE)
    found = {one.fact.subject: one for one in counterfact_cases(tmp_path / "facts.csv")}
    assert found["Ann"].fact == Fact("{} speaks", "Ann", "Greek", "French")
    assert found["Ann"].neighbours == (("Bob speaks", "French"),), "the same relation and the same true answer"
    assert found["Cid"].neighbours == ()


def test_the_original_records(tmp_path: Path) -> None:
    record = {
        "requested_rewrite": {"prompt": "{} speaks", "subject": "Ann", "target_new": {"str": "Greek"},
                              "target_true": {"str": "French"}},
        "paraphrase_prompts": ["The language of Ann is"], "neighborhood_prompts": ["Bob speaks", "Eve speaks"],
    }  # fmt: skip
    (tmp_path / "facts.json").write_text(json.dumps([record, record]))
    [case] = counterfact_cases(tmp_path / "facts.json", neighbours=1)
    assert case.fact == Fact("{} speaks", "Ann", "Greek", "French")
    assert case.paraphrases == ("The language of Ann is",)
    assert case.neighbours == ("Bob speaks",)


def test_a_relation(tmp_path: Path) -> None:
    held = {"prompt_templates": ["{} speaks"], "prompt_templates_zs": ["{} speaks", "The language of {} is"],
            "samples": [{"subject": "Ann", "object": "French"}, {"subject": "Bob", "object": "Greek"}]}  # fmt: skip
    (tmp_path / "speaks.json").write_text(json.dumps(held))
    found = {one.fact.subject: one for one in relation_cases(tmp_path / "speaks.json")}
    assert found["Ann"].fact == Fact("{} speaks", "Ann", "Greek", "French")
    assert found["Ann"].paraphrases == ("The language of Ann is",)
    held["samples"] = held["samples"][:1]
    (tmp_path / "speaks.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match="single object"):
        relation_cases(tmp_path / "speaks.json")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FileError, match="label"):
        counterfact_cases(tmp_path / "a.csv")
    with pytest.raises(FileError, match="prompt_templates"):
        relation_cases(tmp_path / "a.json")
    with pytest.raises(FileError, match="nothing"):
        counterfact_cases(tmp_path / "nothing.csv")


def test_cases_of_the_small_world_are_true_to_it() -> None:
    known = {(one.subject, one.relation): one.answer for one in world.facts()}
    for case in tiny_lm_cases(12, relations=["capital"]):
        assert case.fact.true == known[case.fact.subject, "capital"]
        assert case.fact.target != case.fact.true
        assert case.consequences["logical"] == ((f"{case.fact.target} is the capital of", case.fact.subject),)
        assert all(case.fact.target != answer for prompt, answer in case.neighbours if "capital" in prompt)
    assert tiny_lm_texts(4) == tiny_lm_texts(4)
    assert len(set(tiny_lm_texts(4))) == 4


@pytest.mark.skipif(not (DATA / "truth").is_dir(), reason="the folder of real data (PELLUCID_DATA) is absent")
def test_counterfact_runs_from_the_file_to_the_proof() -> None:
    cases = counterfact_cases(DATA / "truth" / "counterfact_true_false.csv", count=2, neighbours=1)
    assert len(cases) == 2
    assert sum(len(case.neighbours) for case in cases) > 0
    subject = pellucid.load("zoo:tiny-lm")
    proof = prove_edit(subject, subject, cases, tokens=2, written_tokens=0, neutral=["Mary lives in"])
    assert {"efficacy", "locality", "side effects"} <= {row[0] for row in proof.results[0].rows}


@pytest.mark.skipif(not (DATA / "relations").is_dir(), reason="the folder of real data (PELLUCID_DATA) is absent")
def test_every_relation_file_is_read() -> None:
    files = sorted((DATA / "relations").rglob("*.json"))
    assert len(files) > 40
    for file in files:
        found = relation_cases(file, count=3)
        assert found
        assert all(one.fact.text.strip() for one in found)
