"""TokenSHAP: which units of the prompt make the generated answer what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import sampled_shapley
from pellucid.engine.question import completeness
from pellucid.engine.responses import Responses, responses
from pellucid.generators.interface import Generator, Request
from pellucid.models.subject import Subject


@method(
    rows=("N-AT4",),
    paper="arXiv:2407.10114",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="((permutations+2)*(units+1)+2)*length*F+2*F",
)
def token_shap(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement = "delete", length: Positive = 8, permutations: Positive = 8,
    estimator: Literal["shapley", "means"] = "shapley", encoder: Subject | None = None,
    generator: Generator | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share out over the units how alike the answer to them is to the answer to the whole prompt.

    v(S) = cosine between the embeddings of the greedy answer to S and of the reference answer; R_i is the Shapley value
    of i in v. estimator="shapley" samples antithetic orders: unbiased, with standard errors, and the scores sum to
    v(all) - v(none). estimator="means" is the paper's: mean v of sampled S with i minus mean v of those without, among
    all leave-one-out sets and as many random ones (approximation, not the Shapley value). Only text is needed, no
    log-probabilities. Tested with a generator of known skill; no pretrained one was at hand (Goldshmidt and Horovicz
    2024, arXiv:2407.10114).

    Args:
        subject: a language model, from `pellucid.load`; with a `generator` it only cuts the prompt into units.
        prompt: text, chat or token ids.
        target: the answer to compare with; None means the answer to the whole prompt.
        contrast: an answer whose likeness is subtracted.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete" as in the paper, "mask", "pad", "mean", "zero" or a token id.
        length: most tokens of an answer.
        permutations: sampled orders; the paper's estimator takes (units + 1) times as many random sets.
        estimator: "shapley" or the paper's "means".
        encoder: a sentence encoder (a model without a head) that embeds answers; None takes the mean of the subject's
            own token embeddings.
        generator: a server or another writer that answers in the subject's place; needs `encoder` and plain text.
        seed: of the sampling.

    Returns:
        Scores [unit] in cosine similarity; the evidence holds the efficiency residual.

    Raises:
        CapabilityError: the subject writes no text, or answers in text without an encoder.
        InputError: an empty answer, or a chat for a generator.
    """
    game = responses(
        subject, prompt, unit, target=target, contrast=contrast, length=length, encoder=encoder,
        writer=None if generator is None else _writer(generator, length),
    )  # fmt: skip
    question = game.question
    count, rng = len(question.units), np.random.default_rng(seed)
    ends = game.score(np.array([[True] * count, [False] * count]), replacement)
    said = _answers(ends)
    about, measure = f"the answer {_named(game)}", "cosine similarity"
    if estimator == "means":
        masks = _sets(count, (permutations - 1) * (count + 1), rng)
        values = _difference_of_means(masks, game.score(masks, replacement))
        result = question.answer(values, "TokenSHAP, difference of means", unit=measure)
        return replace(result, target=about).with_evidence(said)
    values, error, orders = sampled_shapley(
        count, lambda present: game.score(present, replacement), permutations_at_most=permutations, precision=None,
        rng=rng,
    )  # fmt: skip
    result = question.answer(values, f"TokenSHAP, {orders} orders", std_error=error, unit=measure)
    return replace(result, target=about).with_evidence(
        completeness(values, ends[0] - ends[1], "the whole prompt and the prompt without its units"), said
    )


def _writer(generator: Generator, length: int) -> Callable[[list[str]], list[str]]:
    def write(texts: list[str]) -> list[str]:
        return [reply.text for reply in generator.generate([Request(text, max_tokens=length) for text in texts])]

    return write


def _sets(count: int, random: int, rng: np.random.Generator) -> np.ndarray:
    """Return every leave-one-out set and random ones, none of them empty or whole: [sets, units]."""
    drawn = rng.random((max(random, 0), count)) < 0.5
    masks = np.concatenate([~np.eye(count, dtype=bool), drawn])
    return masks[masks.any(1) & ~masks.all(1)] if count > 1 else np.array([[True], [False]])


def _difference_of_means(masks: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return mean value of the sets with each unit minus that of the sets without it: [units, 1]."""
    inside = masks.T.astype(float)
    outside = 1 - inside
    difference: np.ndarray = (inside @ values) / np.maximum(inside.sum(1), 1)[:, None] - (outside @ values) / (
        np.maximum(outside.sum(1), 1)[:, None]
    )
    return difference


def _answers(ends: np.ndarray) -> Evidence:
    """Return how alike the answers to everything and to nothing are to the reference."""
    whole, nothing = float(ends[0, 0]), float(ends[1, 0])
    return Evidence(
        "answers",
        f"The whole prompt's answer has likeness {whole:.3g}, that of nothing {nothing:.3g}.",
        {"whole": whole, "nothing": nothing},
    )


def _named(game: Responses) -> str:
    pieces = game.question.subject.tokenizer
    named = [
        repr(one) if isinstance(one, str) else repr(pieces.decode(list(one))) if pieces is not None
        else f"of {len(one)} tokens"
        for one in game.references
    ]  # fmt: skip
    return " rather than ".join(named)
