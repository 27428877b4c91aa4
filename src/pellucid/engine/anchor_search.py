"""The search for an anchor: sets of units grown in a beam, told apart by the KL-LUCB bandit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import Game
from pellucid.engine.precision import lower_bound, upper_bound

BATCH = 16


@dataclass
class Rule:
    """How often a set of kept units kept the decision."""

    kept: int = 0
    cases: int = 0

    @property
    def share(self) -> float:
        """Return the share of cases in which it did, the precision."""
        return self.kept / max(self.cases, 1)


@dataclass
class AnchorSearch:
    """A beam search over sets of units, written in the order in which units joined.

    `table` holds for every coalition whether it keeps the decision, where all of them fit into the cases.
    """

    game: Game
    side: bool
    threshold: float
    left: int
    rng: np.random.Generator
    rules: dict[tuple[int, ...], Rule] = field(default_factory=dict)
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
            self.rules.setdefault(rule, Rule())
            if self.table is not None:
                held = self.table[all_coalitions(self.game.players)[:, list(rule)].all(1)]
                self.rules[rule] = Rule(int(held.sum()), len(held))
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
