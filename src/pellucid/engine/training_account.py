"""The account that a training gives of itself: its loss from first to last."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.core.results import Evidence


def training_account(curve: Sequence[float], what: str) -> Evidence:
    """Return the loss over the steps of a training, not ok where it did not fall.

    Args:
        curve: the loss of each step.
        what: what was trained on, for the sentence.
    """
    tenth = max(1, len(curve) // 10)
    start, end = sum(curve[:tenth]) / tenth, sum(curve[-tenth:]) / tenth
    summary = f"The loss went from {start:.3g} to {end:.3g} over {len(curve)} steps on {what}."
    series = {"x": tuple(map(float, range(len(curve)))), "loss": tuple(map(float, curve))}
    return Evidence("training", summary, {"first": start, "last": end}, series, ok=end < start)
