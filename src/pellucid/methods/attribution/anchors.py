"""Anchors: the fewest units that keep the decision as it is, whatever happens to the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import Game, play
from pellucid.engine.precision import lower_bound, upper_bound
from pellucid.models.subject import Subject

BATCH = 16


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
    search = _Search(game, bool(ends[0] > middle), middle, samples, np.random.default_rng(seed))
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


@dataclass
class _Rule:
    """How often a set of kept units kept the decision."""

    kept: int = 0
    cases: int = 0

    @property
    def share(self) -> float:
        return self.kept / max(self.cases, 1)


@dataclass
class _Search:
    """A beam search over sets of units, written in the order in which units joined.

    `table` holds for every coalition whether it keeps the decision, where all of them fit into the cases.
    """

    game: Game
    side: bool
    threshold: float
    left: int
    rng: np.random.Generator
    rules: dict[tuple[int, ...], _Rule] = field(default_factory=dict)
    table: np.ndarray | None = None

    def run(self, precision: float, tolerance: float, beam: int) -> tuple[int, ...]:
        """Return the first accepted set, or the best one when all cases are used."""
        if 2.0**self.game.players <= self.left:
            self.table = self.keeps(all_coalitions(self.game.players))
        front: list[tuple[int, ...]] = [()]
        self.sample([()])
        while True:
            accepted = [rule for rule in front if self.accepts(rule, precision, tolerance)]
            if accepted:
                return max(accepted, key=lambda rule: self.rules[rule].share)
            grown = {frozenset((*rule, i)): (*rule, i) for rule in front for i in range(self.game.players)}
            candidates = [rule for members, rule in grown.items() if len(members) == len(front[0]) + 1]
            if not candidates or self.left <= 0:
                return max(front, key=lambda rule: self.rules[rule].share)
            front = self.best(candidates, beam, tolerance)

    def keeps(self, masks: np.ndarray) -> np.ndarray:
        """Return which coalitions keep the decision: [coalitions] booleans."""
        result: np.ndarray = (self.game.value(masks)[:, 0] > self.threshold) == self.side
        return result

    def sample(self, rules: list[tuple[int, ...]]) -> None:
        """Count all cases of each of the sets where they are known, else draw some, scored together."""
        for rule in rules:
            self.rules.setdefault(rule, _Rule())
            if self.table is not None:
                held = self.table[all_coalitions(self.game.players)[:, list(rule)].all(1)]
                self.rules[rule] = _Rule(int(held.sum()), len(held))
        count = min(BATCH, self.left // len(rules))
        if self.table is not None or count == 0:
            self.left = self.left if self.table is not None else 0
            return
        masks = self.rng.random((len(rules), count, self.game.players)) < 0.5
        for row, rule in enumerate(rules):
            masks[row][:, list(rule)] = True
        self.left -= count * len(rules)
        for rule, row in zip(rules, self.keeps(masks.reshape(-1, self.game.players)).reshape(-1, count), strict=True):
            self.rules[rule].kept += int(row.sum())
            self.rules[rule].cases += count

    def bounds(self, rule: tuple[int, ...], level: float) -> tuple[float, float]:
        """Return between what the precision of a set lies; both are the precision itself where all cases are known."""
        found = self.rules[rule]
        if self.table is not None:
            return found.share, found.share
        return lower_bound(found.share, found.cases, level), upper_bound(found.share, found.cases, level)

    def best(self, candidates: list[tuple[int, ...]], beam: int, tolerance: float) -> list[tuple[int, ...]]:
        """Return the sets of highest precision, by KL-LUCB: sample the doubtful ones until they stand apart.

        No size takes more than a third of the cases that are left.
        """
        stop = self.left * 2 // 3
        self.sample(candidates)
        rounds = 1
        while True:
            ranked = sorted(candidates, key=lambda rule: -self.rules[rule].share)
            top, rest = ranked[:beam], ranked[beam:]
            if not rest or self.left <= stop:
                return top
            level = float(np.log(405.5 * len(candidates) * rounds**1.1 / 0.05))
            level += float(np.log(level))
            weak = min(top, key=lambda rule: self.bounds(rule, level)[0])
            rival = max(rest, key=lambda rule: self.bounds(rule, level)[1])
            if self.bounds(rival, level)[1] - self.bounds(weak, level)[0] < tolerance:
                return top
            self.sample([weak, rival])
            rounds += 1

    def accepts(self, rule: tuple[int, ...], precision: float, tolerance: float) -> bool:
        """Say whether a set is precise enough, drawing more cases while the bounds leave it open."""
        while True:
            share, (low, high) = self.rules[rule].share, self.bounds(rule, float(np.log(20.0)))
            if share >= precision and low >= precision - tolerance:
                return True
            if high < precision or low >= precision - tolerance or self.left <= 0:
                return False
            self.sample([rule])
