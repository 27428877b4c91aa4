"""What a trained model of the zoo can do now, beside its card: `pellucid check zoo:tiny-lm --capabilities`."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer

from pellucid import zoo
from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Table
from pellucid.models.saved import located
from pellucid.models.subject import Record
from pellucid.zoo import classifier_tasks, tasks, world
from pellucid.zoo.capabilities import capabilities
from pellucid.zoo.classifier_tasks import classifier_capabilities

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

SEED = 20_260  # the cards are measured with another one
CHUNK = 8000  # documents of tiny-lm's training text, or reviews, that are written at a time
COLUMNS = ("task", "accuracy", "card", "probability", "chance", "prompts", "ok", "what")


def capability_table(subject: Subject, *, seed: int = SEED, prompts: int = 200, chunks: int = 2) -> Table:
    """Measure what a trained model of the zoo can do, with prompts that training never saw.

    Accuracy and the mean probability of the right answer per task, beside the accuracy on the model's card. A task is
    ok if the two differ by at most a point and three standard errors of both draws of prompts. The evidence says
    whether a prompt occurs whole in the training text.

    Args:
        subject: `zoo:tiny-lm`, a classifier of the zoo, or a snapshot of their training in a folder.
        seed: of the prompts; contents that can occur in them never occur in training, for any seed.
        prompts: per task.
        chunks: of 8000 training texts, in which the prompts are looked for.

    Returns:
        A table [task, accuracy, card, probability, chance, prompts, ok, what].

    Raises:
        InputError: another model, which these tasks were not written for.
    """
    kind = _kind(subject)
    measure = capabilities if kind == "tiny-lm" else classifier_capabilities
    found = measure(subject.model, subject.tokenizer, seed, prompts)
    claimed = _claimed(subject.name)
    rows = tuple(_row(name, row, claimed.get(name)) for name, row in found.items())
    good = sum(row[COLUMNS.index("ok")] for row in rows)
    compared = f"{good} of {len(rows)} as on the card" if claimed else "no card to compare with"
    return Table(
        title=f"{subject.name}: {len(rows)} tasks on prompts of seed {seed}, {compared}",
        columns=COLUMNS, rows=rows, evidence=(held_out(kind, seed=seed, prompts=prompts, chunks=range(chunks)),),
        provenance=subject.provenance("check", {"prompts": prompts, "chunks": chunks}, Record(), seed),
    )  # fmt: skip


def held_out(kind: str, *, seed: int = SEED, prompts: int = 200, chunks: range = range(2)) -> Evidence:
    """Look for the prompts of a seed, whole, in chunks of the text that the bundled model was trained on.

    Args:
        kind: "tiny-lm" or "tiny-classifier", whose text both classifiers have learnt from.
        seed: of the prompts.
        prompts: per task.
        chunks: which parts of the training text.
    """
    trained = zoo.card(kind)["training"]["seed"] if kind in zoo.names() else 0
    if kind == "tiny-lm":
        wanted = {item.prompt for item in tasks.evaluation_items(seed, prompts)}
        seen = [world.occurs_in(wanted, tasks.training_documents(f"{trained} {chunk}", CHUNK)) for chunk in chunks]
    else:
        made = [
            one for task in classifier_tasks.TASKS for one in classifier_tasks.evaluation_reviews(task, seed, prompts)
        ]
        wanted = {review.text for review, _ in made}
        seen = [
            wanted & {review.text for review in classifier_tasks.training_reviews(trained, chunk, CHUNK)}
            for chunk in chunks
        ]
    found, texts = set[str]().union(*seen), CHUNK * len(chunks)
    said = "None" if not found else f"{len(found)}"
    return Evidence(
        "held out",
        f"{said} of the {len(wanted)} prompts occurs whole in {texts} texts of the training (seed {trained}).",
        {"found": float(len(found)), "prompts": float(len(wanted)), "texts": float(texts)},
        ok=not found,
    )


def _kind(subject: Subject) -> str:
    """Return which of the two families of tasks a model was made for, by its vocabulary."""
    for name in ("tiny-lm", "tiny-classifier"):
        if name in zoo.names() and subject.tokenizer is not None:
            own = AutoTokenizer.from_pretrained(zoo.path(name)).get_vocab()
            if own == subject.tokenizer.get_vocab():
                return name
    raise InputError(
        f"Capabilities of {subject.name!r} were asked for, but tasks exist for zoo:tiny-lm and the zoo's classifiers "
        "only; run check without --capabilities."
    )


def _claimed(name: str) -> dict[str, dict[str, Any]]:
    """Return the tasks on the card beside the weights; a snapshot has none."""
    file = Path(located(name)) / "capabilities.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["tasks"] if file.exists() else {}
    return found


def _row(name: str, row: dict[str, Any], claimed: dict[str, Any] | None) -> tuple[Any, ...]:
    accuracy, ok, card = row["accuracy"], True, None
    if claimed is not None:
        card, counts = claimed["accuracy"], (row["prompts"], claimed["prompts"])
        share = (accuracy * counts[0] + card * counts[1]) / sum(counts)
        spread = max(share * (1 - share), 1 / max(counts))
        ok = abs(accuracy - card) <= 0.01 + 3 * sqrt(spread * (1 / counts[0] + 1 / counts[1]))
    figures = (round(value, 4) for value in (row["probability"], row["chance"]))
    return (name, round(accuracy, 4), card, *figures, row["prompts"], ok, row["what"])
