"""A language model as explainer: it is shown changed texts with the model's numbers and names the units that matter."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.errors import CapabilityError, GeneratorError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.explainer_prompts import named_units, request_text, worked_examples
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import default_replacement
from pellucid.generators.interface import Generator, Request
from pellucid.models.subject import Subject

Prompting = Literal["perturbation", "prediction", "instruction", "explanation"]

DRAWS = 200


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
    worked = worked_examples(question, removal, most, rng) if prompting == "explanation" else ""
    asked = request_text(question, masks, scores, prompting, most, worked)
    [reply] = writer.generate([Request(asked, max_tokens=max_tokens)])
    named = named_units(reply.text, count, most)
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
