"""Doses of steering: the edits of each coefficient and of random directions beside it, and what they do to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.engine.planning import in_batches
from pellucid.engine.steering import Steering
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Edits = tuple[Edit, ...]
DRAWS = 1000
NAMES = ("steered", "random direction")


@dataclass(frozen=True, eq=False)
class Doses:
    """The doses, and the edits of each: those of the steering first, then of every random direction, dose by dose."""

    doses: tuple[float, ...]
    edits: list[Edits]
    randoms: int
    generating: bool
    seed: int

    def split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return [dose, item] under the steering, and the mean over random directions."""
        doses = len(self.doses)
        return values[:doses], values[doses:].reshape(self.randoms, doses, -1).mean(0)

    def result(
        self, title: str, values: np.ndarray, unit: str, sign: str, target: str = "", *,
        power: bool = False,
    ) -> Scores:  # fmt: skip
        """Return a measure [edit, item] as a result with its curves; `power` exponentiates the mean of logarithms."""
        found = {name: self._means(one, power) for name, one in zip(NAMES, self.split(values), strict=True)}
        curves: dict[str, tuple[float, ...]] = {"x": self.doses}
        for name, (mean, _, low, high) in found.items():
            curves |= {name: tuple(mean), f"{name}_low": tuple(low), f"{name}_high": tuple(high)}
        return Scores(
            title=title,
            values=np.stack([found[name][0] for name in NAMES]),
            std_error=np.stack([found[name][1] for name in NAMES]),
            axes=("method", "step"),
            labels={"method": NAMES, "step": tuple(f"{dose:g}" for dose in self.doses)},
            unit=unit,
            sign=sign,
            target=target,
            evidence=(
                Evidence(
                    f"{title} by coefficient",
                    f"Mean over {values.shape[1]} items with its 95 % bootstrap interval, in {unit}, beside "
                    f"{self.randoms} random directions of equal norm; the x-axis is the coefficient.",
                    curves=curves,
                ),
            ),
        )

    def _means(self, values: np.ndarray, power: bool) -> tuple[np.ndarray, ...]:
        """Return mean, standard error and interval of each dose [dose, item]."""
        rng = np.random.default_rng(self.seed)
        drawn = values[:, rng.integers(values.shape[1], size=(DRAWS, values.shape[1]))].mean(-1)
        mean = values.mean(1)
        drawn, mean = (np.exp(drawn), np.exp(mean)) if power else (drawn, mean)
        return mean, drawn.std(1), *np.quantile(drawn, [0.025, 0.975], axis=1)

    def notes(self, behaviour: np.ndarray, divergence: np.ndarray, losses: np.ndarray, unit: str) -> tuple[str, ...]:
        """Say in words what each end of the doses did."""
        zero, said = self.doses.index(0.0), []
        pairs = [self.split(one) for one in (behaviour, divergence, losses)]
        for dose in sorted({0, len(self.doses) - 1} - {zero}):
            (b, rb), (k, rk), (p, rp) = ((one[dose].mean(), rand[dose].mean()) for one, rand in pairs)
            base = [pairs[i][0][zero].mean() for i in (0, 2)]
            said.append(
                f"At {self.doses[dose]:+g} the behaviour goes from {base[0]:.3g} to {b:.3g} {unit} (random {rb:.3g}), "
                f"with {k:.3g} nats per token on neutral text (random {rk:.3g}) and perplexity "
                f"{np.exp(base[1]):.3g} to {np.exp(p):.3g} (random {np.exp(rp):.3g})."
            )
        return tuple(said)

    def verdict(self, behaviour: np.ndarray) -> Evidence:
        """Return how much further the steering moves the behaviour, from the least to the largest dose, than chance."""
        steered, chance = self.split(behaviour)
        moved = steered[-1] - steered[0]
        gap = moved - (chance[-1] - chance[0])
        rng = np.random.default_rng(self.seed)
        drawn = gap[rng.integers(len(gap), size=(DRAWS, len(gap)))].mean(1)
        low, high = (float(one) for one in np.quantile(drawn, [0.025, 0.975]))
        rise = float(np.mean(np.diff(steered.mean(1)) > 0))
        return Evidence(
            "steering beyond random directions",
            f"From {self.doses[0]:+g} to {self.doses[-1]:+g} the steering raises the behaviour by {gap.mean():.3g} "
            f"more than random directions of equal norm do (95 % interval {low:.3g} to {high:.3g}); the mean rises at "
            f"{100 * rise:.0f} % of the steps.",
            {"gap": float(gap.mean()), "low": low, "high": high, "rising": rise, "moved": float(moved.mean())},
            ok=True if low > 0 else False if high < 0 else None,
        )


def doses_of(subject: Subject, steering: Steering, coefficients: Sequence[float], randoms: int, seed: int) -> Doses:
    """Return the edits of every coefficient, 0 always among them, for a direction and for random ones of equal norm.

    Raises:
        EditError: a vector from another model.
    """
    doses = tuple(sorted({0.0, *(float(c) for c in coefficients)}))
    rng, vectors = np.random.default_rng(seed), steering.learned.tensors["directions"]
    alike = [steering]
    for _ in range(randoms):
        drawn = rng.standard_normal(vectors.shape)
        drawn *= np.linalg.norm(vectors, axis=-1, keepdims=True) / np.linalg.norm(drawn, axis=-1, keepdims=True)
        tensors: Mapping[str, np.ndarray] = {**steering.learned.tensors, "directions": drawn}
        alike.append(replace(steering, learned=replace(steering.learned, tensors=tensors)))
    edits = [replace(one, coefficient=dose).edits(subject) for one in alike for dose in doses]
    return Doses(doses, edits, randoms, steering.phase == "generation", seed)


@torch.no_grad()
def side_effects(subject: Subject, plan: Doses, texts: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the divergence from the unsteered model and the loss, both [edit, text], in nats per token. Exact.

    Raises:
        InputError: a text in which nothing is predicted.
    """
    if any(len(ids) < 2 for ids in texts):
        raise InputError("A neutral text has fewer than two tokens, so nothing is predicted in it; give longer texts.")
    found = np.zeros((2, len(plan.edits), len(texts)))
    for number, ids in enumerate(texts):
        prompt = 1 if plan.generating else len(ids)
        own = forward(subject, [Row(ids, prompt_length=prompt)]).logits[0, :-1].double().log_softmax(-1)
        following = torch.tensor(ids[1:], device=own.device)[:, None]

        def run(
            batch: list[Edits], ids: tuple[int, ...] = ids, prompt: int = prompt, own: torch.Tensor = own,
            following: torch.Tensor = following,
        ) -> list[tuple[float, float]]:  # fmt: skip
            rows = [Row(ids, edits=edits, prompt_length=prompt) for edits in batch]
            answers = []
            for logits in forward(subject, rows).logits[:, :-1]:
                said = logits.double().log_softmax(-1)
                kl = (own.exp() * (own - said)).sum(-1).mean()
                answers.append((max(float(kl), 0.0), float(-said.gather(-1, following).mean())))
            return answers

        found[:, :, number] = np.array(in_batches(plan.edits, [len(ids)] * len(plan.edits), run)).T
    return found[0], found[1]
