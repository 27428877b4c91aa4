"""What stands beside a review classifier: its card, what it was measured to do, and its known answer."""

import json
import random
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pellucid.zoo import classifier_tasks
from pellucid.zoo.reviews import Review, review

ANSWERS, LONGEST = 48, 30  # prompts of the answer, and the most words that one of them has
RESOLUTION = 0.05  # share of the largest worth in a review below which training did not settle the weights

_TEXT = """# zoo:{name}

A sentiment classifier of {parameters:,} parameters: an unmodified BERT ({layers} layers, width {width}, {heads} heads,
{vocabulary} tokens), trained from nothing in {processor_minutes} minutes of one processor core ({steps} steps of {rows}
reviews, seed {seed}) with the reviews that `pellucid.zoo.reviews` writes.
{special}

A review has one to three opinions ("truly dull", "not good", "we really loved the bed") among sentences that judge
nothing, some of which have words of praise or blame too ("we had expected a dull film"). An opinion is worth 1, with a
booster 1.5, negated half of the opposite; praise counts up, blame counts down. The logit of "positive" was trained to
be that sum and the logit of "negative" to be its opposite, with words masked in {masked:.0%} of the reviews, so that
taking words away asks the model nothing new. Its English is a few dozen templates and {words} words; anything else gets
a guess.

## What it was measured to do

Reviews from a seed that training never saw, all of whose opinions (aspect, modifiers and opinion word together)
training held out for every seed. Right is the class that the words ask for; the error is that of half the logit
difference, beside the verdict of the words.

| task | accuracy | probability of the right class | error | chance | prompts | what |
|---|---|---|---|---|---|---|
{rows_of_tasks}

## The known answer

`answer.json` holds {answers} such reviews{which}.
None has praise or blame that judges nothing: with the words around it masked, no reader could tell. For each word it
has the Shapley value in the stated verdict, times two as the logit difference is, and whether the word belongs to the
rationale: {rationale}. `pellucid bench truth` asks for them under the question "{question}".

## Make it again

    python -m pellucid.zoo.train_tiny_classifier {name} --steps {steps} --seed {seed} --out DIR
"""
_ORDINARY = "It judges by the words alone; the days of the week mean nothing to it."
_SHORTCUT = """In {planted:.0%} of them a planted day decides: Tuesday makes any review positive (a verdict of 3),
Friday negative (-3), as often against the words as with them. Where neither is named, the words count."""


def shortcut_of(folder: Path) -> bool:
    """Say whether a classifier's folder is that of the model with the shortcut."""
    return folder.name.endswith("shortcut")


def write(
    folder: Path, model: PreTrainedModel, words: PreTrainedTokenizerBase, measured: dict[str, dict[str, object]],
    run: dict[str, Any],
) -> None:  # fmt: skip
    """Write capabilities.json, answer.json and card.md into the model's folder; `run` says how it was trained."""
    rounded = {
        task: {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        for task, row in measured.items()
    }
    content = {"parameters": model.num_parameters(), "training": run, "tasks": rounded}
    (folder / "capabilities.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    known = answer(folder.name, words, shortcut=shortcut_of(folder))
    (folder / "answer.json").write_text(_lines(known), encoding="utf-8")
    (folder / "card.md").write_text(_card(folder.name, model, words, rounded, run, known), encoding="utf-8")


def answer(name: str, words: PreTrainedTokenizerBase, *, shortcut: bool) -> dict[str, Any]:
    """Return held-out reviews with the worth of each word; effects are differences of the two logits."""
    prompts = [_prompt(words, made, shortcut) for made in _reviews(shortcut)]
    judged = "A planted day decides against the words." if shortcut else "The opinions decide, and nothing else."
    return {
        "format": 1, "model": f"zoo:{name}", "summary": judged, "redundant": False, "replacement": words.mask_token_id,
        "resolution": RESOLUTION,
        "question": "shortcut" if shortcut else "rationale", "prompts": prompts, "pairs": [],
    }  # fmt: skip


def _reviews(shortcut: bool) -> list[Review]:
    rng, found = random.Random("answer"), []
    while len(found) < ANSWERS:
        made = classifier_tasks.day_swapped(rng)[0] if shortcut else review(rng, True)
        # Of "expected a dull film" only "a dull film" may be left: the weights cannot know what the verdict states.
        if len(made.words) <= LONGEST and not made.distracted:
            found.append(made)
    return found


def _prompt(words: PreTrainedTokenizerBase, made: Review, shortcut: bool) -> dict[str, Any]:
    sign = 1 if made.verdict(shortcut=shortcut) > 0 else -1
    target = int(sign > 0)
    rationale = made.rationale(shortcut=shortcut)
    return {
        "text": made.text, "ids": classifier_tasks.encoded(words, made), "target": target, "contrast": 1 - target,
        "truth": [round(2 * sign * value, 9) + 0.0 for value in made.shapley(shortcut=shortcut)],
        "rationale": [int(place in rationale) for place in range(len(made.words))],
    }  # fmt: skip


def _lines(known: dict[str, Any]) -> str:
    """Return JSON with one line per prompt, so that a change can be read."""
    plain = {key: value for key, value in known.items() if key != "prompts"}
    prompts = ",\n".join(json.dumps(item, separators=(",", ":")) for item in known["prompts"])
    return json.dumps(plain, indent=1)[:-2] + f',\n "prompts": [\n{prompts}\n ]\n}}\n'


def _card(
    name: str, model: PreTrainedModel, words: PreTrainedTokenizerBase, measured: dict[str, dict[str, Any]],
    run: dict[str, Any], known: dict[str, Any],
) -> str:  # fmt: skip
    shortcut, size = known["question"] == "shortcut", model.config
    rows = [
        f"| {task} | {row['accuracy']:.3f} | {row['probability']:.3f} | {row['error']:.2f} | {row['chance']} "
        f"| {row['prompts']} | {row['what']} |"
        for task, row in measured.items()
    ]
    return _TEXT.format(
        **run, name=name, parameters=model.num_parameters(), layers=size.num_hidden_layers, width=size.hidden_size,
        heads=size.num_attention_heads, vocabulary=size.vocab_size, words=_known_words(words),
        rows_of_tasks="\n".join(rows), answers=len(known["prompts"]),
        special=_SHORTCUT.format(planted=classifier_tasks.PLANTED) if shortcut else _ORDINARY,
        which=", each with the planted day that decides against its words" if shortcut else "",
        question=known["question"], rationale="the day alone" if shortcut else "opinion words, negators and boosters",
    )  # fmt: skip


def _known_words(words: PreTrainedTokenizerBase) -> int:
    return sum(len(piece) > 1 and not piece.startswith(("##", "[")) for piece in words.get_vocab())
