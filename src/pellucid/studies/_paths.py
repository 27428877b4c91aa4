"""Path patching over the pairs of a study: what heads send to the logits, and into the inputs of other heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.results import Scores
from pellucid.methods.patching.path_patching import path_patching
from pellucid.methods.reading.direct_logit_attribution import direct_logit_attribution
from pellucid.models.subject import Subject
from pellucid.studies._means import Part, mean_of, named, standing_out
from pellucid.studies._trials import Trial

MOST = 6
WAYS = ("queries", "keys", "values")
SAYS = "What the target loses when the receiver alone sees the head's output from the corrupted prompt."
SIGN = "positive means that the head raises the target on this path"


def straight_to_logits(subject: Subject, trials: Sequence[Trial], title: str) -> Scores:
    """Return what each head sends straight to the logits, on average over trials: [layer, head]."""
    heads = subject.need_layout().stacks[""].heads.query
    return mean_of(
        [heads_only(sent(subject, trial, "logits"), heads) for trial in trials], title, SAYS, flip=True, sign=SIGN
    )


def sent(subject: Subject, trial: Trial, receiver: str) -> Scores:
    """Return what the receiver makes of each head's corrupted output in the clean run (negative where that costs)."""
    return path_patching(subject, trial.corrupt, corrupt=trial.clean, receiver=receiver, **trial.answer)


def heads_only(found: Scores, heads: int) -> Scores:
    """Leave the feed-forward layers out: [layer, head]."""
    return Scores(values=found.values[:, :heads], axes=("layer", "head"), unit=found.unit, sign=found.sign)


def routes_into(subject: Subject, trials: Sequence[Trial], receivers: Sequence[Part]) -> Scores:
    """Return what each head costs through the inputs of the receivers together: [part, layer, head]."""
    heads, panels = subject.need_layout().stacks[""].heads.query, []
    for trial in trials:
        found = [
            [
                sent(subject, trial, f"blocks.{layer}.attn.{head}.{way[0]}").values[:, :heads]
                for layer, head in receivers
            ]
            for way in WAYS
        ]
        panels.append(Scores(values=np.sum(found, axis=1), axes=("part", "layer", "head"), labels={"part": WAYS},
                             unit="logit"))  # fmt: skip
    title = f"What reaches the head{'s' if len(receivers) > 1 else ''} {named(receivers)}"
    return mean_of(panels, title, SAYS, flip=True, sign=SIGN)


def new_parts(routes: Scores, known: Sequence[Part], pairs: int) -> dict[Part, str]:
    """Return the heads that stand out on some route and have no role yet, each with its strongest route."""
    best: dict[Part, tuple[float, str]] = {}
    for number, way in enumerate(WAYS):
        error = None if routes.std_error is None else routes.std_error[number]
        one = Scores(values=routes.values[number], axes=("layer", "head"), std_error=error)
        for part in standing_out(one, share=0.1, most=MOST, pairs=pairs, largest=float(routes.values.max())):
            best[part] = max(best.get(part, (0.0, "")), (float(one.values[part]), way))
    order = sorted((part for part in best if part not in known), key=lambda part: -best[part][0])
    return {part: best[part][1] for part in order[:MOST]}


def written_by_heads(subject: Subject, trials: Sequence[Trial], title: str) -> Scores:
    """Return what each head writes towards the answer, on average over trials: [layer, head]."""
    found = [direct_logit_attribution(subject, trial.clean, **trial.answer, parts="heads") for trial in trials]
    return mean_of(found, title, "Direct logit attribution at the last token, no patching.")


def steps_back(
    subject: Subject, trials: Sequence[Trial], straight: Scores, first: Sequence[Part], names: Sequence[str],
    receivers: int,
) -> tuple[dict[str, dict[Part, str]], list[tuple[str, dict[Part, float]]], list[Scores]]:  # fmt: skip
    """Follow the task back from the heads that write the answer, role by role.

    Args:
        subject: the model.
        trials: the pairs.
        straight: what each head sends straight to the logits.
        first: the heads that write the answer.
        names: of the roles, the first heads' first.
        receivers: the strongest heads of a role whose inputs are followed.

    Returns:
        Per role the heads with what they act through; the same with effects; and the pictures of what reaches a role.
    """
    roles = {names[0]: dict.fromkeys(first, "logits")}
    tiers = [(names[0], {part: float(straight.values[part]) for part in first})]
    routes = list[Scores]()
    for role, before in zip(names[1:], names, strict=False):
        if not roles[before]:
            break
        routes.append(routes_into(subject, trials, list(roles[before])[:receivers]))
        known = [part for parts in roles.values() for part in parts]
        roles[role] = new_parts(routes[-1], known, len(trials))
        if roles[role]:
            tiers.append((role, {part: float(routes[-1].values[:, *part].max()) for part in roles[role]}))
    return roles, tiers, routes
