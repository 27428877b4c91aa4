"""The report of a study: what was found in sentences first, then pictures, then the checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.results import Evidence, Explanation, Graph, Result
from pellucid.core.targets import Target
from pellucid.engine.generation import next_token_distribution
from pellucid.engine.targets import name_of
from pellucid.models.subject import Subject
from pellucid.studies._means import Part
from pellucid.studies._trials import Ability, Trial


def report(
    subject: Subject, title: str, trial: Trial, target: str, *, notes: Sequence[str], results: Sequence[Result],
    evidence: Sequence[Evidence],
) -> Explanation:  # fmt: skip
    """Return the answer of a study, with its first prompt as the example."""
    tokens = subject.encode(trial.clean)
    return Explanation(
        title=title,
        tokens=tokens,
        target=target,
        predictions=tuple((name_of(subject, i), p) for i, p in next_token_distribution(subject, tokens, 5)),
        notes=tuple(notes),
        results=tuple(results),
        evidence=tuple(evidence),
    )


def stopped(subject: Subject, title: str, trial: Trial, target: str, found: Ability) -> Explanation:
    """Return the answer where the model cannot do the task: one sentence, and no picture."""
    share = found.evidence.values
    note = (
        f"{subject.name} cannot do this task ({100 * share['accuracy']:.0f} % right, chance "
        f"{100 * share['chance']:.2g} "
        "%), so there is nothing to be located and the study stops here."
    )
    return report(subject, title, trial, target, notes=[note], results=(), evidence=[found.evidence])


def circuit_graph(tiers: Sequence[tuple[str, dict[Part, float]]], unit: str, receivers: int) -> Graph:
    """Draw heads tier by tier, the first tier writing to the answer and each other one to the tier before it.

    Args:
        tiers: per role the heads with their effect; the heads of a tier send to the one named before it.
        unit: of the effects.
        receivers: heads of a tier, strongest first, that the next one was measured to send to.
    """
    nodes: list[dict[str, Any]] = [{"id": "answer", "label": "answer", "layer": len(tiers)}]
    edges: list[tuple[int, int, float]] = []
    before = [0]
    for depth, (role, heads) in enumerate(tiers):
        here = list(range(len(nodes), len(nodes) + len(heads)))
        nodes += [
            {
                "id": f"{role} {layer}.{head}",
                "label": f"head {layer}.{head}",
                "role": role,
                "layer": len(tiers) - 1 - depth,
            }
            for layer, head in heads
        ]
        for node, effect in zip(here, heads.values(), strict=True):
            edges += [(node, other, effect / len(before)) for other in before]
        before = here[:receivers] or before
    return Graph(
        title="The circuit",
        nodes=tuple(nodes),
        sources=np.array([a for a, _, _ in edges], dtype=int),
        targets=np.array([b for _, b, _ in edges], dtype=int),
        weights=np.array([w for _, _, w in edges], dtype=float),
        unit=unit,
        evidence=(
            Evidence("what it shows", f"Roles from left to right: {', '.join(role for role, _ in reversed(tiers))}; an "
                     "edge's weight is the effect of the head, shared among its receivers; paths go into the "
                     f"{receivers} strongest heads of a role."),
        ),
    )  # fmt: skip


def same_form(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the most common template, whose positions line up."""
    forms = [trial.form for trial in trials]
    common = max(set(forms), key=forms.count)
    return [trial for trial in trials if trial.form == common]


def probability(trial: Trial) -> Target:
    """Return the probability of the first right token as a target."""
    return Target(trial.right[0], measure="prob")
