"""MExGen: explanations of generated text at several levels, sentences first, then the words of the best ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import all_coalitions, exact_shapley
from pellucid.engine.groups import Groups, grouped, shared_out, unfolded
from pellucid.engine.question import Question, ask
from pellucid.engine.responses import Responses, responses
from pellucid.engine.variants import default_replacement
from pellucid.generators.interface import Generator, Request
from pellucid.models.subject import Subject

Value = Callable[[np.ndarray], np.ndarray]


@method(
    rows=("N-AT4",),
    paper="arXiv:2403.14459",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="2*(max(samples, 2**(2*radius+1))*units+2)*F+F",
)
def mexgen(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None,
    groups: Literal["auto", "word", "sentence", "line", "message"] | Positive = "auto", refine: Positive = 2,
    algorithm: Literal["c_lime", "l_shap"] = "c_lime", scalar: Literal["target", "answer"] = "target",
    samples: Positive = 5, removed: Positive = 2, radius: Positive = 1, length: Positive = 8,
    encoder: Subject | None = None, generator: Generator | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score groups of units, then replace the `refine` highest groups by their units and score the mixture.

    algorithm="c_lime" fits v(x) - v(z) = sum of R over what z lacks by least squares, over all leave-one-out inputs and
    random ones that lack 2 to `removed` parts: passes linear in the parts. "l_shap" takes for each part the exact
    Shapley value of the game in which only it and `radius` neighbours on either side can be removed. Units of closed
    groups share their group's score. Positive raises the target. Approximation; both give w of an additive target
    exactly. scalar="answer" generates text and takes its likeness to the target; tested with a generator of known
    skill, as no pretrained one was at hand (Monteiro Paes et al. 2024, arXiv:2403.14459).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts, or its whole answer with scalar="answer".
        contrast: the alternative to compare with.
        unit: the finest parts: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes the mask token or "delete".
        groups: the parts scored first: a coarser kind of unit, a number of equal groups, or "auto".
        refine: groups that are opened, those with the highest scores.
        algorithm: "c_lime" or "l_shap".
        scalar: score the "target" by the model, or the "answer", `length` passes for each of the others.
        samples: inputs per part, for "c_lime"; at least the leave-one-out ones are taken.
        removed: most parts missing at once, for "c_lime".
        radius: neighbours on either side, for "l_shap".
        length: most tokens of an answer.
        encoder: a sentence encoder that embeds answers; None takes the subject's own token embeddings.
        generator: answers in the subject's place; needs `encoder`, plain text and deletion.
        seed: of the sampling.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    game: Question | Responses
    if scalar == "target":
        game = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    else:
        writer = None if generator is None else _writer(generator, length)
        game = responses(subject, prompt, unit, target=target, contrast=contrast, length=length, encoder=encoder,
                         writer=writer)  # fmt: skip
    question = game.question if isinstance(game, Responses) else game
    removal = default_replacement(question.subject) if replacement is None else replacement
    count, rng = len(question.units), np.random.default_rng(seed)

    def explained(parts: Groups) -> np.ndarray:
        value: Value = lambda present: game.score(unfolded(present, parts, count), removal)  # noqa: E731
        if algorithm == "l_shap":
            return _local_shapley(value, len(parts), radius)
        return _constrained_lime(value, len(parts), samples, removed, rng)

    return _levels(question, explained, grouped(question.subject, question.tokens, question.units, groups), refine,
                   f"MExGen, {algorithm.replace('_', '-').upper()}", scalar == "answer")  # fmt: skip


def _writer(generator: Generator, length: int) -> Callable[[list[str]], list[str]]:
    def write(texts: list[str]) -> list[str]:
        return [reply.text for reply in generator.generate([Request(text, max_tokens=length) for text in texts])]

    return write


def _levels(
    question: Question, explained: Callable[[Groups], np.ndarray], parts: Groups, refine: int, title: str, text: bool
) -> Scores:
    """Score the groups, open the best of them and score the mixture."""
    count, coarse = len(question.units), explained(parts)
    opened = set(np.argsort(-coarse.sum(1), kind="stable")[:refine].tolist())
    mixed: Groups = tuple(
        piece for g, part in enumerate(parts) for piece in ([(i,) for i in part] if g in opened else [part])
    )
    values = shared_out(explained(mixed) if len(mixed) > len(parts) else coarse, mixed, count)
    single = sum(len(part) == 1 for part in mixed)
    measure = "cosine similarity" if text else question.readout.unit
    return question.answer(values, title, unit=measure).with_evidence(
        Evidence(
            "levels",
            f"{len(parts)} groups were scored and {len(opened)} of them opened; {single} of {count} units have a score "
            "of their own.",
            {"groups": float(len(parts)), "opened": float(len(opened)), "single": float(single)},
        )
    )


def _constrained_lime(value: Value, parts: int, samples: int, removed: int, rng: np.random.Generator) -> np.ndarray:
    """Return the least-squares effects [parts, targets] of removals of at most `removed` parts at once."""
    masks = [np.ones((1, parts), dtype=bool), ~np.eye(parts, dtype=bool)]
    most = min(removed, parts)
    if most > 1:
        more = np.ones((max(samples - 1, 0) * parts, parts), dtype=bool)
        for mask in more:
            mask[rng.choice(parts, rng.integers(2, most + 1), replace=False)] = False
        masks.append(more)
    present = np.concatenate(masks)
    scores = value(present)
    effects: np.ndarray = np.linalg.lstsq((~present[1:]).astype(float), scores[:1] - scores[1:], rcond=None)[0]
    return effects


def _local_shapley(value: Value, parts: int, radius: int) -> np.ndarray:
    """Return for each part its Shapley value among its neighbours, all others present: [parts, targets]."""
    windows = [list(range(max(0, i - radius), min(parts, i + radius + 1))) for i in range(parts)]
    masks = []
    for window in windows:
        own = np.ones((2 ** len(window), parts), dtype=bool)
        own[:, window] = all_coalitions(len(window))
        masks.append(own)
    scores, found, at = value(np.concatenate(masks)), [], 0
    for part, window in enumerate(windows):
        size = 2 ** len(window)
        found.append(exact_shapley(scores[at : at + size], len(window))[window.index(part)])
        at += size
    return np.stack(found)
