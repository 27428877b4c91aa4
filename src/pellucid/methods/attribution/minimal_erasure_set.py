"""Minimal erasure set: the fewest units whose removal changes what the model decides."""

from __future__ import annotations

import itertools

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.decision import decided
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject

EXACT_LIMIT = 12


@method(
    rows=("FAP-2",),
    paper="arXiv:1612.08220",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="((1-exact)*(units*(units+1)+2)+exact*2**units+units+1)*F+F",
)
def minimal_erasure_set(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, exact: bool = False,
) -> Scores:  # fmt: skip
    """Find a smallest set D of units whose removal changes the decision, and score its members.

    The decision margin is m = logit(target) - largest other logit (the logit difference with a `contrast`); D is
    erased when m changes sign. R_i = what m loses when i is removed, along D in its order; 0 outside D. The scores sum
    to m(x) - m(x without D). `exact` enumerates sets by size, so that none is smaller. Otherwise D grows greedily and
    then every unit that can be put back is: no single unit of D is needless, but a smaller set may exist
    (approximation). Where the model does not decide for the target, D makes it do so (Li et al. 2016,
    arXiv:1612.08220, who search by reinforcement learning).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: one token or class; None means what the model predicts. A function stands for its sign.
        contrast: decide against this alternative alone.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        exact: enumerate sets by size (up to 12 units).

    Returns:
        Scores [unit], 0 outside the set. The evidence says whether a set was found and what is known of its size.

    Raises:
        InputError: `exact` with more than 12 units.
        TargetError: a target of several tokens.
    """
    question = decided(ask(subject, prompt, target=target, contrast=contrast, unit=unit))
    count = len(question.units)
    removal = default_replacement(question.subject) if replacement is None else replacement
    if exact and count > EXACT_LIMIT:
        raise InputError(
            f"The smallest erasure set was asked for among {count} units, but only {EXACT_LIMIT} can be enumerated; "
            "use a coarser unit or exact=False."
        )
    whole = float(question.score(np.ones((1, count), dtype=bool), removal)[0, 0])
    order = (_enumerated if exact else _greedy)(question, removal, whole)
    path = np.ones((len(order) + 1, count), dtype=bool)
    for step, number in enumerate(order):
        path[step + 1 :, number] = False
    margins = question.score(path, removal)
    values = np.zeros((count, 1))
    values[order] = margins[:-1] - margins[1:]
    after = float(margins[-1, 0])
    return question.answer(values, "Minimal erasure set", unit="decision margin").with_evidence(
        _found(question, order, whole, after, exact)
    )


def _flipped(margins: np.ndarray, whole: float) -> np.ndarray:
    """Return how far margins lie on the other side of the decision: above 0 where it changed (a tie is no change)."""
    return -margins[:, 0] if whole > 0 else margins[:, 0]


def _enumerated(question: Question, removal: Replacement, whole: float) -> list[int]:
    count = len(question.units)
    for size in range(1, count + 1):
        sets = list(itertools.combinations(range(count), size))
        masks = np.ones((len(sets), count), dtype=bool)
        for row, gone in enumerate(sets):
            masks[row, list(gone)] = False
        flipped = _flipped(question.score(masks, removal), whole)
        if flipped.max() > 0:
            return list(sets[int(flipped.argmax())])
    return list(range(count))


def _greedy(question: Question, removal: Replacement, whole: float) -> list[int]:
    count = len(question.units)
    present, order, far = np.ones(count, dtype=bool), list[int](), -np.inf
    while far <= 0 and present.any():
        left = np.flatnonzero(present)
        masks = np.repeat(present[None], len(left), 0)
        masks[np.arange(len(left)), left] = False
        flipped = _flipped(question.score(masks, removal), whole)
        best = int(flipped.argmax())
        present[left[best]], far = False, flipped[best]
        order.append(int(left[best]))
    while far > 0 and len(order) > 1:
        masks = np.repeat(present[None], len(order), 0)
        masks[np.arange(len(order)), order] = True
        flipped = _flipped(question.score(masks, removal), whole)
        best = int(flipped.argmax())
        if flipped[best] <= 0:
            break
        present[order.pop(best)] = True
    return order


def _found(question: Question, order: list[int], whole: float, after: float, exact: bool) -> Evidence:
    found = (after > 0) != (whole > 0)
    units = f"{len(order)} of {len(question.units)} units"
    known = "no smaller set does" if exact else "none of them can be put back, but a smaller set may exist"
    summary = (
        f"Removing {units} changes the decision; {known} (margin {whole:.3g} before, {after:.3g} after)."
        if found
        else f"No removed units change the decision; the scores follow the removal of all (margin {whole:.3g} before, "
        f"{after:.3g} after)."
    )
    return Evidence(
        "erasure set",
        summary,
        {"size": float(len(order)), "before": whole, "after": after, "smallest": float(exact and found)},
        ok=found,
    )
