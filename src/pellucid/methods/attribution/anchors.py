"""Anchors: the fewest units that keep the decision as it is, whatever happens to the others."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.anchor_search import AnchorSearch
from pellucid.engine.game import play
from pellucid.models.subject import Subject


@method(
    rows=("STD-anchors",),
    paper="doi:10.1609/aaai.v32i1.11491",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="samples*F+3*F",
)
def anchors(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, threshold: float | None = None,
    precision: Fraction = 0.95, tolerance: Fraction = 0.1, beam: Positive = 2, samples: Positive = 1000, seed: int = 0,
) -> Scores:  # fmt: skip
    """Find the smallest set of units that, when kept, keeps the decision in a share `precision` of all cases.

    The decision is on which side of `threshold` the target lies; a case keeps the anchor and every other unit with
    chance 1/2. Sets grow by one unit in a beam search; which of them are best is decided by the KL-LUCB bandit, and a
    set is accepted when the lower confidence bound of its precision is within `tolerance` of `precision`
    (Ribeiro et al. 2018). A unit of the anchor scores what it added to the estimated precision when it joined, so
    the scores sum to the anchor's precision minus that of keeping nothing; units outside score 0. Precisions are
    exact where all 2^n cases fit into `samples`, else estimates whose interval holds with chance 95 %.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        threshold: where the decision changes, in the unit of the target: 0 for a contrast of two answers; None takes
            the middle between the whole prompt and the prompt without its units.
        precision: share of cases that must keep the decision.
        tolerance: how far below `precision` the lower bound may lie.
        beam: how many sets are kept at each size.
        samples: largest number of cases; when they run out, the best set so far is returned and the evidence says so.
        seed: of the cases.

    Returns:
        Scores [unit]; the anchor with its precision, bounds and coverage as evidence.

    Raises:
        InputError: a target with `each`, because an anchor explains one decision.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    if game.question.readout.each:
        raise InputError("An anchor explains one decision, but the target scores each token; drop each=True.")
    ends = game.value(np.array([[True] * game.players, [False] * game.players]))[:, 0]
    middle = float(ends.mean()) if threshold is None else threshold
    search = AnchorSearch(game, bool(ends[0] > middle), middle, samples, np.random.default_rng(seed))
    best = search.run(precision, tolerance, beam)
    found, values = search.rules[best], np.zeros((game.players, 1))
    for place, member in enumerate(best):
        values[member] = search.rules[best[: place + 1]].share - search.rules[best[:place]].share
    names = " and ".join(repr(game.question.units.labels[i].strip()) for i in sorted(best)) or "nothing"
    low, high = search.bounds(best, float(np.log(40.0)))
    check = Evidence(
        "anchor",
        f"Keeping {names} keeps the decision in {100 * found.share:.0f} % of {found.cases} cases (95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f} %); it covers {100 * 0.5 ** len(best):.2g} % of the cases.",
        {"precision": found.share, "low": low, "high": high, "coverage": 0.5 ** len(best), "size": float(len(best))},
        ok=bool(low >= precision - tolerance),
    )
    sign = "positive: part of the anchor, by what it adds to the precision"
    return game.question.answer(values, f"Anchor: {names}", unit="precision", sign=sign).with_evidence(check)
