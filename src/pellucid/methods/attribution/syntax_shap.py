"""SyntaxShap: gains of a word averaged over the coalitions that its dependency tree allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.question import ask
from pellucid.engine.trees import depths
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject


@method(
    rows=("N-AT4",),
    paper="arXiv:2402.09259",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(2**units, units*samples*(units+1))*F+2*F",
)
def syntax_shap(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, heads: Sequence[int] | None = None,
    weighted: bool = False, samples: Positive = 64, seed: int = 0,
) -> Scores:  # fmt: skip
    """Average the gain of each unit over coalitions that hold whole levels of the dependency tree above one level.

    R_i = mean over S of v(S with i) - v(S): S is every unit above some level p not below i's own, together with any
    subset of level p without i (each S once); `weighted` divides by i's level, the root's being 1. Positive raises the
    target. Exact where every level has at most log2(`samples`) units, else subsets of a level are sampled. It is not
    the Shapley value: the scores do not sum to v(all) - v(none). Tested with given trees; no pretrained parser was at
    hand (Amara et al. 2024, arXiv:2402.09259).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. The paper takes the probability of the next token:
            `Target(measure="prob")`.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        heads: for each unit the index of its head in the tree, -1 for the root, from any parser; None stands every
            unit on the one before it (the right-branching chain).
        weighted: divide by the level.
        samples: most subsets of one level.
        seed: of the subsets.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.

    Raises:
        InputError: heads that are no tree over the units.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    removal = default_replacement(question.subject) if replacement is None else replacement
    count = len(question.units)
    tree = list(range(-1, count - 1)) if heads is None else [int(head) for head in heads]
    depth = _depths(tree, count)
    rng = np.random.default_rng(seed)
    allowed = [_level(depth, level, samples, rng) for level in range(int(depth.max()) + 1)]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for number in range(count):
        without = np.concatenate(allowed[: depth[number] + 1])
        without[:, number] = False
        without = np.unique(without, axis=0)
        joined = without.copy()
        joined[:, number] = True
        pairs.append((joined, without))
    scores = question.score(np.concatenate([masks for pair in pairs for masks in pair]), removal)
    values, at = np.zeros((count, scores.shape[1])), 0
    for number, (joined, _) in enumerate(pairs):
        size = len(joined)
        values[number] = (scores[at : at + size] - scores[at + size : at + 2 * size]).mean(0)
        at += 2 * size
    if weighted:
        values /= depth[:, None] + 1
    return question.answer(values, "SyntaxShap").with_evidence(_parse(depth, heads is not None))


def _level(depth: np.ndarray, level: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return coalitions of all units above a level and every (or `samples` random) subset of it: [n, units]."""
    own = np.flatnonzero(depth == level)
    few = 2 ** len(own) <= samples
    subsets = all_coalitions(len(own)) if few else rng.random((samples, len(own))) < 0.5
    masks = np.repeat((depth < level)[None], len(subsets), 0)
    masks[:, own] = subsets
    return masks


def _depths(tree: list[int], count: int) -> np.ndarray:
    reason = f"there are {len(tree)}" if len(tree) != count else ""
    if not reason and -1 not in tree:
        reason = "none is -1, the root"
    if not reason:
        try:
            return depths(tree)
        except ValueError as error:
            reason = str(error)
    raise InputError(f"The heads must be a tree over the {count} units, but {reason}; give one head per unit.")


def _parse(depth: np.ndarray, given: bool) -> Evidence:
    levels = int(depth.max()) + 1
    said = "The given tree has" if given else "No parse was given; a right-branching chain stood in, with"
    return Evidence("parse", f"{said} {levels} levels over {len(depth)} units.", {"levels": float(levels)}, ok=given)
