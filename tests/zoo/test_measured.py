"""`check --capabilities` measures, compares with the card, and finds a prompt that was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.cli import main
from pellucid.core.errors import InputError
from pellucid.zoo import classifier_tasks, measured, tasks
from pellucid.zoo.measured import COLUMNS, capability_table, held_out


@pytest.fixture(autouse=True)
def _little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look through a part of the training text only; `make show ISSUE=zoo` looks through all of it."""
    monkeypatch.setattr(measured, "CHUNK", 400)


def column(table: Any, name: str) -> dict[str, Any]:
    return {row[0]: row[COLUMNS.index(name)] for row in table.rows}


def test_the_table_has_every_task_beside_the_card() -> None:
    table = capability_table(pellucid.load("zoo:tiny-classifier"), prompts=40, chunks=1)
    assert column(table, "card") == {
        name: row["accuracy"] for name, row in pellucid.zoo.card("tiny-classifier")["tasks"].items()
    }
    assert set(column(table, "accuracy")) == {task.name for task in classifier_tasks.TASKS}
    assert all(column(table, "ok").values())
    assert table.evidence[0].ok
    assert "None of the" in table.evidence[0].summary


def test_the_wrong_model_under_a_card_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model with the shortcut is measured against the other one's card: only the swapped days betray it."""
    claimed = pellucid.zoo.card("tiny-classifier")["tasks"]
    monkeypatch.setattr(measured, "_claimed", lambda name: claimed)
    table = capability_table(pellucid.load("zoo:tiny-classifier-shortcut"), prompts=40, chunks=1)
    assert [task for task, ok in column(table, "ok").items() if not ok] == ["day_swapped"]


def test_a_snapshot_is_measured_without_a_card(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "step-00100"
    shutil.copytree(pellucid.zoo.path("tiny-classifier"), folder)
    for name in ("capabilities.json", "card.md", "answer.json"):
        (folder / name).unlink()
    table = capability_table(pellucid.load(str(folder)), prompts=10, chunks=1)
    assert set(column(table, "card").values()) == {None}
    assert "no card" in table.title


def test_a_prompt_that_training_used_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = tasks.training_documents("0 0", measured.CHUNK)[0].text
    items = [*tasks.evaluation_items(1, 1), tasks.evaluation_items(1, 1)[0].__class__("facts", trained[:25], ("",), ())]
    monkeypatch.setattr(tasks, "evaluation_items", lambda seed, count: items)
    assert held_out("tiny-lm", chunks=range(1)).ok is False
    learnt = classifier_tasks.training_reviews(0, 0, measured.CHUNK)[2]
    monkeypatch.setattr(classifier_tasks, "evaluation_reviews", lambda task, seed, count: [(learnt, None)])
    assert held_out("tiny-classifier", chunks=range(1)).values["found"] == 1


def test_other_models_are_refused() -> None:
    with pytest.raises(InputError, match="run check without --capabilities"):
        capability_table(pellucid.load("zoo:truth/fact"))


@pytest.mark.slow
def test_the_command_prints_only_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "zoo:tiny-classifier", "--capabilities", "--prompts", "20", "--seed", "8", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["columns"] == list(COLUMNS)
    assert document["provenance"]["seed"] == 8
    assert main(["check", "zoo:tiny-classifier", "--seed", "8"]) == 2
    assert "--seed belongs to --capabilities" in capsys.readouterr().err
