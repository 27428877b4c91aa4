"""Owen values: Shapley values in which words join within their sentence, and sentences within their message."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.adjusted import Estimate
from pellucid.engine.game import Game, efficiency, play, sampling_error
from pellucid.engine.hierarchy import Node, exact_weights, halves, nested, orders, size
from pellucid.engine.orders import estimate_over_orders
from pellucid.models.subject import Subject


@method(
    rows=("FAS-2",),
    paper="doi:10.1007/978-3-642-45494-3_7",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="max(permutations, 4)*(units+1)*F+2*F",
)
def owen_values(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, hierarchy: Literal["text", "halves"] = "text",
    permutations: Positive = 24, precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target among units that join only together with their sentence and their message.

    The Shapley value over the orders in which the units of a sentence, and the sentences of a message, follow each
    other without a gap (Owen 1977; Winter 1989): a unit is never judged in a text torn out of all sentences, and the
    scores of a sentence sum to its own Shapley value among the sentences. hierarchy="halves" splits the prompt in two
    again and again, as Partition SHAP does with a balanced tree. Positive raises the target; the scores sum to
    v(all) - v(none). Exact where the coalitions that the hierarchy allows are no more than the sampling would score;
    otherwise orders are sampled in antithetic pairs: unbiased, with standard errors.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        hierarchy: "text" for sentences and messages (one level where the text has one sentence), or "halves".
        permutations: largest number of sampled orders.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the orders.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the efficiency residual, the total of every
        group of the coarsest level, and the sampling error where sampled.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    tree = halves(range(game.players)) if hierarchy == "halves" else _of_text(game)
    found = _exact(game, tree, permutations * (game.players + 1))
    if found is None:
        found = estimate_over_orders(
            game.players, game.value, orders(tree, np.random.default_rng(seed)), orders_at_most=permutations,
            precision=precision,
        )  # fmt: skip
    title = "Owen values, exact" if found.error is None else f"Owen values, {found.draws} orders"
    result = game.question.answer(found.values, title, std_error=found.error)
    return result.with_evidence(
        efficiency(found.values, found.difference),
        *_groups(game, tree, found.values),
        *sampling_error(found.values, found.error, found.draws, "orders"),
    )


def _of_text(game: Game) -> Node:
    """Return the tree of messages, sentences and units; a level that the prompt lacks is left out."""
    question, tokens = game.question, game.question.tokens
    starts = [start for start, _ in question.units.spans]
    levels = []
    if tokens.message:
        levels.append([tokens.message[start] for start in starts])
    if tokens.text:
        sentences = np.array([start for start, _ in question.subject.units(tokens, "sentence").spans])
        levels.append([int(np.searchsorted(sentences, start, side="right")) for start in starts])
    return nested(range(game.players), levels)


def _exact(game: Game, tree: Node, budget: int) -> Estimate | None:
    """Return the exact values, or None where they need more coalitions than the budget."""
    if size(tree) > 64 * budget:
        return None
    masks, weights = exact_weights(tree)
    if len(masks) > budget:
        return None
    worth = game.value(masks)
    ends = worth[masks.all(1)][0] - worth[~masks.any(1)][0]
    return Estimate(weights.T @ worth, None, ends, 0)


def _groups(game: Game, tree: Node, values: np.ndarray) -> tuple[Evidence, ...]:
    """Return the total of each coarsest group that has more than one unit in it."""
    labels = game.question.units.labels
    if all(not part.parts for part in tree.parts):
        return ()
    totals = {
        f"{k + 1}: {''.join(labels[i] + ' ' for i in part.members[:3]).strip()}": float(
            values[list(part.members)].sum()
        )
        for k, part in enumerate(tree.parts)
    }
    listed = "; ".join(f"{name} … {total:.3g}" for name, total in totals.items())
    return (Evidence("groups", f"The totals of the groups, each its own Shapley value: {listed}.", totals),)
