"""ROAR: how much worse a model is that is trained without the highest-scored units than one without random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Fraction, PromptLike, Replacement, Unit
from pellucid.core.results import Evidence
from pellucid.core.tokens import Tokens, Units
from pellucid.engine.game import play
from pellucid.engine.variants import remove
from pellucid.evaluate._decision import margin
from pellucid.evaluate._explaining import explained
from pellucid.models.blackbox import MASK
from pellucid.models.subject import Subject

Train = Callable[[list[Any], list[int]], Subject]


@metric(
    rows=("N-BM7",),
    paper="arXiv:1806.10758",
    takes="dataset",
    produces="evidence",
    better="higher",
    chance=0,
)
def roar(
    train: Callable[..., Any], prompts: Sequence[PromptLike], labels: Sequence[int],
    explainer: str | Callable[..., Any], *, shares: Sequence[float] = (0.1, 0.3, 0.5), recursive: bool = True,
    held_out: Fraction = 0.3, unit: Unit = "token", replacement: Replacement = "mask", seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return how much more accuracy is lost by training without the top units than without random ones.

    Remove and retrain (Hooker et al. 2019, arXiv:1806.10758): at each share, the highest-scored units of every prompt
    are replaced, in training and held-out data, a model is trained anew, and its accuracy on the held-out part is
    compared with that after as much random removal. The value is the mean gap over the shares. Higher is better; random
    scores have 0 on average. No model sees inputs that it was not trained for; what is judged is which units hold
    information about the label. Exact for the one split, training and random order taken.

    Args:
        train: makes of prompts and labels a Subject that takes such prompts and whose classes are the labels.
        prompts: prompts of the task, all texts or all token ids.
        labels: index of the right class of each.
        explainer: the name of a method, or a function with the arguments of one; asked about the right class.
        shares: of the units that are replaced, rising.
        recursive: explain the model trained last, not the first (Madsen et al. 2022, arXiv:2110.08412).
        held_out: share of the prompts that accuracy is measured on.
        unit: what is removed.
        replacement: "mask", "pad" or a token id; units keep their places.
        seed: of the split and the random order.
        settings: further parameters of the explainer.

    Returns:
        Evidence with the mean gap, the accuracy without removal, and both curves of accuracy over shares.

    Raises:
        InputError: unequal numbers, no held-out prompt, shares that do not rise, or a replacement that is no word.
    """
    _check(prompts, labels, shares, held_out, replacement)
    rng, given = np.random.default_rng(seed), dict(settings or {})
    tested = set(rng.permutation(len(prompts))[: round(held_out * len(prompts))].tolist())
    judge, whole = first, _ = _retrained(train, list(prompts), labels, tested)
    items = [_item(first, prompt, unit) for prompt in prompts]
    chance = [rng.permutation(len(item.units)) for item in items]
    curves: dict[str, list[float]] = {"method": [], "random": []}
    for share in shares:
        for item, label in zip(items, labels, strict=True):
            prompt = item.shown(first, item.present if recursive else np.ones_like(item.present), replacement)
            scores = explained(judge, prompt, explainer, int(label), {"unit": list(item.units.spans), **given})
            item.remove_top(share, scores.values)
        left = [item.shown(first, item.present, replacement) for item in items]
        trained, accuracy = _retrained(train, left, labels, tested)
        judge = trained if recursive else judge
        curves["method"].append(accuracy)
        kept = [places >= _count(share, len(places)) for places in map(np.argsort, chance)]
        random = [item.shown(first, mask, replacement) for item, mask in zip(items, kept, strict=True)]
        curves["random"].append(_retrained(train, random, labels, tested)[1])
    value = float(np.mean(np.subtract(curves["random"], curves["method"])))
    return Evidence(
        "remove and retrain",
        f"Trained without the highest-scored units, models lose {100 * value:.0f} points of accuracy more than without "
        f"random ones (from {100 * whole:.0f} %; more is better, 0 is chance).",
        {"value": value, "whole": whole},
        {"x": tuple(float(s) for s in shares), **{name: tuple(curve) for name, curve in curves.items()}},
    )


@dataclass(eq=False)
class _Prompt:
    """A prompt, its units, and which of them are still there."""

    tokens: Tokens
    units: Units
    present: np.ndarray

    def shown(self, subject: Subject, present: np.ndarray, replacement: Replacement) -> Any:
        """Return the prompt with units replaced: text for a black box, whose ids are its own, else ids."""
        if subject.kind != "black-box":
            return list(remove(subject, self.tokens, self.units, present, replacement).ids)
        gone = {p for keep, (a, b) in zip(present, self.units.spans, strict=True) if not keep for p in range(a, b)}
        return "".join(f" {MASK}" if p in gone else piece for p, piece in enumerate(self.tokens.pieces))

    def remove_top(self, share: float, scores: np.ndarray) -> None:
        """Drop the highest-scored of the units that are left, until the share is reached."""
        left = np.where(self.present, np.asarray(scores, dtype=np.float64), -np.inf)
        more = _count(share, len(self.units)) - int((~self.present).sum())
        self.present[np.argsort(-left, kind="stable")[: max(more, 0)]] = False


def _item(subject: Subject, prompt: PromptLike, unit: Unit) -> _Prompt:
    tokens = subject.encode(prompt)
    units = subject.units(tokens, unit)
    return _Prompt(tokens, units, np.ones(len(units), dtype=bool))


def _count(share: float, units: int) -> int:
    return int(np.ceil(share * units - 1e-9))


def _retrained(train: Train, prompts: list[Any], labels: Sequence[int], tested: set[int]) -> tuple[Subject, float]:
    """Return a model trained on the prompts that are not held out, and its accuracy on those that are."""
    inside, hits = [i for i in range(len(prompts)) if i not in tested], []
    subject = train([prompts[i] for i in inside], [int(labels[i]) for i in inside])
    for i in sorted(tested):
        game = margin(play(subject, prompts[i], int(labels[i]), None, "token", "delete"))
        hits.append(game.value(np.ones((1, game.players), dtype=bool))[0, 0] > 0)
    return subject, float(np.mean(hits))


def _check(
    prompts: Sequence[Any], labels: Sequence[int], shares: Sequence[float], held_out: float, replacement: Replacement
) -> None:
    if len(prompts) != len(labels) or not 0 < round(held_out * len(prompts)) < len(prompts):
        raise InputError(
            f"{len(prompts)} prompts, {len(labels)} labels and held_out={held_out} were given; give one label per "
            "prompt, and prompts on both sides of the split."
        )
    if not len(shares) or sorted(set(shares)) != list(shares) or not 0 < shares[0] <= shares[-1] <= 1:
        raise InputError(f"The shares {list(shares)} were given; give numbers that rise, above 0 and at most 1.")
    if replacement in ("delete", "mean", "zero"):
        raise InputError(f"The replacement {replacement!r} is no word that a model can be trained on; use 'mask'.")
