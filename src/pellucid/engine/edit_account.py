"""The account that an edit of weights gives of itself: what it does to its facts, and what beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.core.facts import Fact
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine.continuations import following_ids, forced
from pellucid.engine.edit_guard import guard

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def accounted(
    subject: Subject, name: str, facts: Sequence[Fact], edit: WeightEdit, neutral: Sequence[Any] | None, seed: int
) -> WeightEdit:
    """Return the edit with a title, the targets' probability before and after, and its side effects."""
    what = f"{facts[0].text}{facts[0].continuation}" if len(facts) == 1 else f"{len(facts)} facts"
    found = efficacy(subject, subject.with_(edit), facts)
    return replace(edit, title=f"{name}: {what}").with_evidence(found, guard(subject, edit, neutral, seed))


def efficacy(subject: Subject, edited: Subject, facts: Sequence[Fact]) -> Evidence:
    """Return the probability per token of the targets behind their own prompts, before and after."""
    before, after = (
        np.array([found.probability for found in forced(one, [following_ids(one, f.text, f.target) for f in facts])])
        for one in (subject, edited)
    )
    values = {"before": float(before.mean()), "after": float(after.mean()), "least after": float(after.min())}
    summary = f"The targets' probability a token: {before.mean():.3g}, then {after.mean():.3g} (mean of {len(facts)})."
    return Evidence("efficacy", summary, values)
