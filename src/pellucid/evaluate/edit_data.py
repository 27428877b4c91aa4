"""Facts to edit, with the questions that judge an edit, from the files in which the field keeps them."""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.core.errors import FileError, InputError
from pellucid.core.facts import Fact
from pellucid.engine.edit_cases import EditCase
from pellucid.zoo import tasks, world


def counterfact_cases(file: str | Path, *, count: int = 50, neighbours: int = 5, seed: int = 0) -> list[EditCase]:
    """Read facts in the format of CounterFact: the original JSON, or the table of true and false statements.

    The JSON (Meng et al. 2022, arXiv:2202.05262) has its own paraphrases and neighbours. The table has the columns
    relation, subject, target, true_target and label; a row with label 0 gives the fact with its false target as the
    new answer, and neighbours are other subjects of the same relation with the same true target, as in CounterFact;
    it has no paraphrases.

    Args:
        file: the file, `.json` or `.csv`.
        count: facts to draw, without two about one subject.
        neighbours: most neighbours per fact.
        seed: of the draw.

    Raises:
        FileError: a file that cannot be read or has other columns.
    """
    rows = _counterfact_json(Path(file)) if Path(file).suffix == ".json" else _counterfact_table(Path(file), seed)
    random.Random(seed).shuffle(rows)
    kept: dict[str, EditCase] = {}
    for case in rows:
        if case.fact.subject not in kept and len(kept) < count:
            kept[case.fact.subject] = EditCase(
                case.fact, case.paraphrases, case.neighbours[:neighbours], case.consequences, case.references
            )
    return list(kept.values())


def _counterfact_json(file: Path) -> list[EditCase]:
    found = []
    try:
        for record in json.loads(file.read_text(encoding="utf-8")):
            asked = record["requested_rewrite"]
            fact = Fact(asked["prompt"], asked["subject"], asked["target_new"]["str"], asked["target_true"]["str"])
            found.append(EditCase(fact, tuple(record["paraphrase_prompts"]), tuple(record["neighborhood_prompts"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{file.name} could not be read as CounterFact ({type(error).__name__}: {error}); give a list of records "
            "with requested_rewrite, paraphrase_prompts and neighborhood_prompts."
        ) from None
    return found


def _counterfact_table(file: Path, seed: int) -> list[EditCase]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = [(row["relation"], row["subject"], row["target"], row["true_target"])
                    for row in csv.DictReader(lines) if row["label"] == "0"]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{file.name} could not be read as facts ({type(error).__name__}: {error}); give a CSV with the columns "
            "relation, subject, target, true_target and label."
        ) from None
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for relation, subject, _, true in rows:
        alike[relation, true].append(subject)
    rng, found = random.Random(seed), list[EditCase]()
    for relation, subject, new, true in rows:
        others = [other for other in dict.fromkeys(alike[relation, true]) if other != subject]
        near = tuple((relation.format(other), true) for other in rng.sample(others, min(len(others), 10)))
        found.append(EditCase(Fact(relation, subject, new, true), (), near))
    return found


def relation_cases(file: str | Path, *, count: int = 20, neighbours: int = 5, seed: int = 0) -> list[EditCase]:
    """Read facts of one relation (Hernandez et al. 2024, arXiv:2308.09124), each with another object as new answer.

    The first template is the prompt, the others, and those without context, are paraphrases; neighbours are other
    subjects with their own objects.

    Args:
        file: a JSON file with prompt_templates and samples of subject and object.
        count: facts to draw.
        neighbours: most neighbours per fact.
        seed: of the draw.

    Raises:
        FileError: a file that cannot be read so.
        InputError: a relation with a single object.
    """
    try:
        held = json.loads(Path(file).read_text(encoding="utf-8"))
        first, *more = dict.fromkeys([*held["prompt_templates"], *held.get("prompt_templates_zs", [])])
        samples = {one["subject"]: one["object"] for one in held["samples"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{Path(file).name} could not be read as a relation ({type(error).__name__}: {error}); give "
            "prompt_templates and samples with subject and object."
        ) from None
    objects = sorted(set(samples.values()))
    if len(objects) < 2:
        raise InputError(f"The relation in {Path(file).name} has a single object, so no fact of it can become another.")
    rng, found = random.Random(seed), list[EditCase]()
    for subject in rng.sample(sorted(samples), min(count, len(samples))):
        new = rng.choice([one for one in objects if one != samples[subject]])
        others = [(other, own) for other, own in samples.items() if other != subject and own != new]
        chosen = rng.sample(others, min(neighbours, len(others)))
        found.append(EditCase(
            Fact(first, subject, new, samples[subject]), tuple(text.format(subject) for text in more),
            tuple((first.format(other), own) for other, own in chosen),
        ))  # fmt: skip
    return found


def tiny_lm_cases(
    count: int = 20, *, relations: Sequence[str] = ("capital", "home"), neighbours: int = 5, seed: int = 0
) -> list[EditCase]:
    """Return facts that `zoo:tiny-lm` knows, each with another answer of its relation.

    The first wording of a fact is the prompt, the others are paraphrases; neighbours are other subjects of the
    relation, and the same subject's other facts. A new capital has one logical consequence: the city's country.

    Args:
        count: facts to draw, without two about one subject.
        relations: "capital", "country", "continent", "language", "home", "origin", "craft", "instrument".
        neighbours: neighbours per fact.
        seed: of the draw.
    """
    rng, known = random.Random(seed), world.facts()
    own = [fact for fact in known if fact.relation in relations]
    rng.shuffle(own)
    found: dict[str, EditCase] = {}
    for fact in own:
        if fact.subject not in found and len(found) < count:
            found[fact.subject] = _tiny_case(fact, known, neighbours, rng)
    return list(found.values())


def _tiny_case(fact: world.Fact, known: Sequence[world.Fact], neighbours: int, rng: random.Random) -> EditCase:
    relation = world.RELATIONS[fact.relation]
    prompts = [_asked(wording, fact) for wording in relation.statements]
    new = rng.choice([value for value in relation.values if value != fact.answer])
    others = [one for one in known if one.relation == fact.relation and one.subject != fact.subject
              and one.answer != new]  # fmt: skip
    same = [one for one in known if one.subject == fact.subject and one.relation != fact.relation]
    near = [*rng.sample(others, min(neighbours, len(others))), *rng.sample(same, min(2, len(same)))]
    follows: dict[str, Any] = {}
    if fact.relation == "capital":
        follows["logical"] = ((f"{new} is the capital of", fact.subject),)
    return EditCase(
        Fact(prompts[0], fact.subject, new, fact.answer), tuple(prompts[1:]),
        tuple((_asked(world.RELATIONS[one.relation].statements[0], one), one.answer) for one in near), follows,
    )  # fmt: skip


def _asked(wording: str, fact: world.Fact) -> str:
    """Return a wording up to its answer."""
    return world.prompt_of(world.fill(wording, fact))[0]


def tiny_lm_texts(count: int = 40, seed: int = 0) -> list[str]:
    """Return text of the kinds that `zoo:tiny-lm` was trained on, none of it about the facts that it is asked."""
    rng, about = random.Random(seed), ("fact", "chat")
    free = [task for task in tasks.TASKS if not any(word in task.name for word in about)]
    return [world.document(rng.choice(free).write(rng, True).marked).text for _ in range(count)]
