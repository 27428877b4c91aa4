"""One question to one model: prompt, units and readout; and the answer as Scores.

A method asks with `ask`, scores variants or differentiates, and answers with `answer`: what is left in the method
file is its paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens, Units
from pellucid.engine.forward_mode import unit_slopes
from pellucid.engine.gradients import site_values, value_and_gradient, values_at
from pellucid.engine.readout import Readout
from pellucid.engine.scoring import score
from pellucid.engine.targets import resolve
from pellucid.engine.variants import fill_vector, mask_position, removals, replacement_id

if TYPE_CHECKING:
    from pellucid.core.params import Baseline, Normalise, PromptLike, Reduce, Replacement, TargetLike, Unit
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt, the units scores are given for, and what is read."""

    subject: Subject
    tokens: Tokens
    units: Units
    readout: Readout

    def score(self, present: np.ndarray, replacement: Replacement) -> np.ndarray:
        """Return the scores of coalitions: [n, units] booleans -> [n, targets]."""
        variants = removals(self.subject, self.tokens, self.units, present, replacement)
        return score(self.subject, self.tokens, self.readout, variants)

    def embeddings(self) -> torch.Tensor:
        """Return the token embeddings of the prompt: [positions, dimension]."""
        return site_values(self.subject, self.tokens, self.readout)

    def gradient(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values [points, targets] and gradients [points, targets, positions, dimension] at given embeddings."""
        return value_and_gradient(self.subject, self.tokens, self.readout, points)

    def slopes(self, points: torch.Tensor, direction: torch.Tensor) -> np.ndarray:
        """Return the derivatives [points, units, targets] at given embeddings along a direction, unit by unit."""
        found = unit_slopes(self.subject, self.tokens, self.readout, self.units, points, direction)
        return found.double().cpu().numpy()

    def values(self, points: torch.Tensor) -> np.ndarray:
        """Return the scores [points, targets] at given embeddings [points, positions, dimension]."""
        return values_at(self.subject, self.tokens, self.readout, points).double().cpu().numpy()

    def baseline(self, baseline: Baseline, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the embeddings the path starts from: units at the baseline, every other token at its own embedding."""
        start = embeddings.clone()
        positions = list(self.units.positions())
        start[positions] = _baseline(self, baseline, embeddings)[positions]
        return start

    def answer(self, values: np.ndarray, title: str, *, std_error: np.ndarray | None = None, **fields: Any) -> Scores:
        """Return Scores [unit] or [unit, target] from values [units, targets], in the order of the prompt."""
        return _scores(self, values, title, std_error, fields)


def ask(
    subject: Subject,
    prompt: PromptLike,
    *,
    target: TargetLike = None,
    contrast: int | str | None = None,
    unit: Unit | str = "token",
) -> Question:
    """Encode the prompt, find its units and resolve the target.

    Raises:
        InputError: an empty prompt, or no unit left to explain.
        TargetError: a target the model does not have.
    """
    tokens = subject.encode(prompt)
    units = subject.units(tokens, unit)
    if len(units) == 0:
        raise InputError(
            f"The prompt has no {unit} to explain, only special tokens; pass a longer prompt or unit='token+special'."
        )
    return Question(subject, tokens, units, resolve(subject, tokens, target, contrast))


def read_position(question: Question) -> int:
    """Return the position that the output is read from: the last one, the mask, or the first (pooled by an encoder)."""
    subject = question.subject
    if subject.head == "masked-lm":
        return mask_position(subject, question.tokens)
    return 0 if subject.kind == "encoder" else len(question.tokens) - 1


def _baseline(question: Question, baseline: Baseline, embeddings: torch.Tensor) -> torch.Tensor:
    subject = question.subject
    if baseline == "zero":
        return torch.zeros_like(embeddings)
    if isinstance(baseline, str) and baseline == "mean":
        return fill_vector(subject, "mean").expand_as(embeddings)
    if isinstance(baseline, (str, int)):
        token = replacement_id(subject, baseline)  # type: ignore[arg-type]
        ids = torch.full((len(question.tokens),), token)
        other = replace(question.tokens, ids=tuple(ids.tolist()))
        return site_values(subject, other, question.readout)
    given = torch.as_tensor(baseline).to(embeddings)
    try:
        return given.expand_as(embeddings).clone()
    except RuntimeError:
        raise InputError(
            f"The baseline has the shape {tuple(given.shape)}, but the embeddings are {tuple(embeddings.shape)}; "
            "give one vector, or one per token."
        ) from None


def per_unit(by_position: np.ndarray, units: Units) -> np.ndarray:
    """Sum scores over the tokens of each unit: [positions, targets] -> [units, targets]."""
    return np.stack([by_position[start:end].sum(0) for start, end in units.spans])


def reduced(vectors: torch.Tensor, reduce: Reduce) -> torch.Tensor:
    """Reduce the last axis (hidden dimension) to one number: sum, mean, l1, l2, abs_sum (|sum|) or abs_mean."""
    if reduce == "sum":
        return vectors.sum(-1)
    if reduce == "mean":
        return vectors.mean(-1)
    if reduce == "abs_mean":
        return vectors.abs().mean(-1)
    if reduce == "abs_sum":
        return vectors.sum(-1).abs()
    return vectors.norm(p=1 if reduce == "l1" else 2, dim=-1)


def normalised(values: np.ndarray, normalise: Normalise) -> np.ndarray:
    """Scale the scores of each target: by their sum, l1 norm, l2 norm or largest absolute value; "none" leaves them."""
    if normalise == "none":
        return values
    size = {
        "sum": values.sum(0, keepdims=True),
        "l1": np.abs(values).sum(0, keepdims=True),
        "l2": np.sqrt((values**2).sum(0, keepdims=True)),
        "max_abs": np.abs(values).max(0, keepdims=True),
    }[normalise]
    return np.divide(values, size, out=np.zeros_like(values), where=size != 0)


def completeness(values: np.ndarray, difference: np.ndarray, between: str) -> Evidence:
    """Return the evidence that scores add up to what they explain: |sum - difference|, per target.

    Args:
        values: [units, targets].
        difference: [targets], the change of the target that the scores should share out.
        between: the two inputs compared, in words.
    """
    gap = np.abs(values.sum(0) - difference)
    share = float((gap / np.maximum(np.abs(difference), 1e-9)).max())
    worst = float(gap.max())
    return Evidence(
        "completeness",
        f"The scores add up to the change between {between} within {worst:.2g} ({100 * share:.2g} % of it).",
        {"residual": worst, "relative": share, "difference": float(difference[np.argmax(gap)])},
        ok=bool(share < 0.05 or worst < 1e-3),
    )


def _scores(
    question: Question, values: np.ndarray, title: str, std_error: np.ndarray | None, fields: dict[str, Any]
) -> Scores:
    matrix = question.readout.each
    labels: dict[str, Sequence[str]] = {"unit": question.units.labels}
    if matrix:
        labels["target"] = question.readout.labels
    defaults: dict[str, Any] = {"unit": question.readout.unit}
    return Scores(
        title=title,
        values=values if matrix else values[:, 0],
        axes=("unit", "target") if matrix else ("unit",),
        labels={axis: tuple(names) for axis, names in labels.items()},
        tokens=question.tokens,
        units=question.units,
        std_error=None if std_error is None else std_error if matrix else std_error[:, 0],
        target=question.readout.description,
        **(defaults | fields),
    )
