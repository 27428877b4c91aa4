"""A prompt as a cooperative game: its units are the players, the target is what a coalition of them is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.results import Evidence, Scores
from pellucid.engine.question import Question, ask, completeness
from pellucid.engine.variants import default_replacement

if TYPE_CHECKING:
    from pellucid.core.params import PromptLike, Replacement, TargetLike, Unit
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Game:
    """A question whose units may be absent; `removal` takes the place of an absent one."""

    question: Question
    removal: Replacement

    @property
    def players(self) -> int:
        """Return the number of units."""
        return len(self.question.units)

    def value(self, present: np.ndarray) -> np.ndarray:
        """Return what coalitions are worth: [coalitions, units] booleans -> [coalitions, targets]."""
        return self.question.score(present, self.removal)

    def pairs(self, values: np.ndarray, title: str, error: np.ndarray | None = None) -> Scores:
        """Return Scores [unit, other_unit] or [unit, other_unit, target] from [units, units, targets]."""
        plain = self.question.answer(values[:, 0], title)
        matrix = self.question.readout.each
        return replace(
            plain,
            values=values if matrix else values[..., 0],
            axes=("unit", "other_unit", *plain.axes[1:]),
            labels={**plain.labels, "other_unit": plain.labels["unit"]},
            std_error=error if error is None or matrix else error[..., 0],
        )


def play(
    subject: Subject, prompt: PromptLike, target: TargetLike, contrast: int | str | None, unit: Unit | str,
    replacement: Replacement | None,
) -> Game:  # fmt: skip
    """Ask a question whose units can be removed; `replacement` None takes the subject's default.

    Raises:
        InputError: an empty prompt, or no unit left to explain.
        TargetError: a target the model does not have.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    return Game(question, default_replacement(question.subject) if replacement is None else replacement)


def efficiency(values: np.ndarray, difference: np.ndarray) -> Evidence:
    """Return the evidence that scores share out the whole change of the target; for several targets, each residual.

    Args:
        values: [units, targets] (or [parts, targets] where pairs have a share of their own).
        difference: [targets], the whole prompt minus the prompt without its units.
    """
    found = completeness(values, difference, "the whole prompt and the prompt without its units")
    if len(difference) == 1:
        return found
    each = {
        "x": tuple(float(k + 1) for k in range(len(difference))),
        "residual": tuple(float(v) for v in np.abs(values.sum(0) - difference)),
    }
    return replace(found, curves=each)


def sampling_error(values: np.ndarray, error: np.ndarray | None, count: int, what: str) -> tuple[Evidence, ...]:
    """Return the evidence on the standard errors of scores from `count` draws (`what` names them); none if exact."""
    if error is None:
        return ()
    if np.isnan(error).all():
        return (
            Evidence("sampling error", f"{count} {what} are too few for a standard error.", {"draws": float(count)}),
        )
    largest, scale = float(np.nanmax(error)), float(np.abs(values).max())
    share = largest / max(scale, 1e-12)
    return (
        Evidence(
            "sampling error",
            f"From {count} {what}, the largest standard error is {largest:.2g}, "
            f"{100 * share:.0f} % of the largest score.",
            {"standard_error": largest, "relative": share, "draws": float(count)},
            ok=share < 0.25,
        ),
    )
