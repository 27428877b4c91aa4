"""A language model as explainer: it is shown changed texts with the model's numbers and names the units that matter."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from pellucid.core.errors import CapabilityError, GeneratorError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import default_replacement
from pellucid.generators.interface import Generator, Request
from pellucid.models.subject import Subject

Prompting = Literal["perturbation", "prediction", "instruction", "explanation"]
DRAWS = 200
ASKED: dict[str, str] = {
    "perturbation": "Judge from these changes alone which words the number depends on most.",
    "prediction": "First predict the number for each of the held-out lines from the others, then say which words "
    "your predictions used most.",
    "instruction": "Go step by step. 1: for each word compare the lines that have it with those that lack it. 2: write "
    "down how much the number changes. 3: sort the words by the size of that change.",
    "explanation": "The worked examples show, for other versions of the text, which words the number depends on most.",
}


@method(
    rows=("FAP-8",),
    paper="arXiv:2310.05797",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(samples+3*(units+1)+2)*F",
)
def language_model_explainer(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, generator: Generator | None = None,
    prompting: Prompting = "perturbation", top: Positive = 3, samples: Positive = 16, max_tokens: Positive = 256,
    seed: int = 0,
) -> Scores:  # fmt: skip
    """Ask a language model which units matter, showing it changed inputs and what the model gives for each.

    The generator sees which units each of `samples` random inputs has and the target's score, and names the `top`
    units; R_i = top for the one named first, then top - 1, ..., 0 for the others. How it is asked: by the changes alone
    ("perturbation"), predicting held-out scores first ("prediction"), in steps ("instruction"), or with two worked
    examples by leave-one-out ("explanation"). No guarantee: the evidence says what removing the named units
    does, against random sets. Tested with generators of known skill; no pretrained one was at hand (Kroeger et al.
    2023, arXiv:2310.05797).

    Args:
        subject: the model that is explained, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        generator: the language model that explains; None lets the subject explain itself, where it writes text.
        prompting: how it is asked.
        top: units to name.
        samples: changed inputs that it is shown.
        max_tokens: length of its answer.
        seed: of the changed inputs.

    Returns:
        Scores [unit]: ranks, 0 for units that were not named.

    Raises:
        CapabilityError: no generator, and the subject writes no text.
        GeneratorError: an answer that names no unit.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    writer = _writer(subject) if generator is None else generator
    removal = default_replacement(question.subject) if replacement is None else replacement
    count, rng = len(question.units), np.random.default_rng(seed)
    most = min(top, count)
    masks = rng.random((samples, count)) < 0.7
    masks[0] = True
    scores = question.score(masks, removal).sum(1)
    worked = _examples(question, removal, most, rng) if prompting == "explanation" else ""
    asked = _prompt(question, masks, scores, prompting, most, worked)
    [reply] = writer.generate([Request(asked, max_tokens=max_tokens)])
    named = _named(reply.text, count, most)
    if not named:
        raise GeneratorError(
            f"{writer.name} was asked for the {most} most important of {count} units and answered {reply.text[:80]!r}; "
            "use a stronger generator or another prompting."
        )
    values = np.zeros((count, question.readout.size))
    values[named] = np.arange(most, most - len(named), -1)[:, None]
    result = question.answer(
        values, f"{writer.name} as explainer", unit="rank", sign="larger means named earlier, 0 not named"
    )
    return result.with_evidence(_removal(question, named, removal, rng))


def _writer(subject: Subject) -> Generator:
    from pellucid.generators.local import LocalGenerator

    if subject.kind == "black-box":
        raise CapabilityError(f"{subject.name} writes no text, so it cannot explain itself; pass generator=.")
    return LocalGenerator(subject.without_edits())


def _lines(masks: np.ndarray, scores: np.ndarray | list[str]) -> list[str]:
    shown = [f"{s:.4g}" if isinstance(s, float) else str(s) for s in list(scores)]
    return [f"{' '.join('1' if here else '0' for here in mask)} -> {s}" for mask, s in zip(masks, shown, strict=True)]


def _prompt(
    question: Question, masks: np.ndarray, scores: np.ndarray, prompting: Prompting, top: int, worked: str
) -> str:
    """Return what the generator is asked."""
    words = "\n".join(f"{i + 1}: {label.strip()!r}" for i, label in enumerate(question.units.labels))
    held = max(1, len(masks) // 4) if prompting == "prediction" else 0
    known = _lines(masks[: len(masks) - held], scores[: len(masks) - held])
    open_lines = _lines(masks[len(masks) - held :], ["?"] * held)
    parts = [
        "A model gives a number for a text. Here are the numbered words of one text:",
        words,
        "Each line below is a version of the text: 1 where the word of that place is there, 0 where it was removed, "
        "then the number.",
        "\n".join(known),
    ]
    if held:
        parts += ["Held-out lines:", "\n".join(open_lines)]
    parts += [worked] if worked else []
    parts += [
        ASKED[prompting],
        f"Name the {top} words the number depends on most, the most important first. End with one line of the form "
        f"'Answer: ' and their {top} word numbers with commas between them.",
    ]
    return "\n".join(parts) + "\n"


def _examples(question: Question, removal: Replacement, top: int, rng: np.random.Generator) -> str:
    """Return two worked examples: other versions of the text, explained by leaving out each of their words."""
    count, shown = len(question.units), ["Worked examples:"]
    for present in rng.random((2, count)) < 0.8:
        masks = np.repeat(present[None], count + 1, 0)
        masks[np.arange(1, count + 1), np.arange(count)] = False
        scores = question.score(masks, removal).sum(1)
        drop = np.where(present, np.abs(scores[0] - scores[1:]), -1.0)
        best = [str(int(i) + 1) for i in np.argsort(-drop, kind="stable")[:top] if present[i]]
        shown += [*_lines(masks[:1], scores[:1]), f"Answer: {', '.join(best)}"]
    return "\n".join(shown)


def _named(text: str, count: int, top: int) -> list[int]:
    """Return the units that the last line with an answer names, in order, each once."""
    lines = [line for line in text.splitlines() if re.search(r"\d", line)]
    answers = [line for line in lines if "answer" in line.lower()] or lines
    if not answers:
        return []
    numbers = [int(n) - 1 for n in re.findall(r"\d+", re.split(r"(?i)answer\s*:?", answers[-1])[-1])]
    return [n for n in dict.fromkeys(numbers) if 0 <= n < count][:top]


def _removal(question: Question, named: list[int], removal: Replacement, rng: np.random.Generator) -> Evidence:
    """Return what removing the named units, one at a time, does to the target, against random sets of their size."""
    count = len(question.units)
    present = np.concatenate([np.ones((1, count), dtype=bool), ~np.eye(count, dtype=bool)])
    scores = question.score(present, removal).sum(1)
    change = np.abs(scores[0] - scores[1:])
    own = float(change[named].mean())
    random = [float(change[rng.choice(count, len(named), replace=False)].mean()) for _ in range(DRAWS)]
    reached = float(np.mean([other <= own + 1e-12 for other in random]))
    return Evidence(
        "removal",
        f"Removing one of the {len(named)} named units moves the target by {own:.3g} on average, at least as much "
        f"as {100 * reached:.0f} % of random sets of that size (mean {np.mean(random):.3g}).",
        {"named": own, "random": float(np.mean(random)), "reached": reached},
        ok=reached >= 0.9,
    )
