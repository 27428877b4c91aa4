"""Dose-response: what each coefficient of steering does to a behaviour and to neutral text, beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, TargetLike
from pellucid.core.results import Explanation, Learned
from pellucid.engine.cone import score_edits
from pellucid.engine.doses import doses_of, side_effects
from pellucid.engine.steering import Steering
from pellucid.engine.targets import resolve
from pellucid.models.subject import Subject


@method(
    rows=("N-ST1",),
    paper="arXiv:2312.06681",
    takes="dataset",
    produces="explanation",
    needs=("activations", "logits"),
    cost="(prompts+examples)*steps*(samples+1)*F",
)
def dose_response(
    subject: Subject, prompts: Sequence[Any], steering: object, *, neutral: Sequence[Any], target: TargetLike = None,
    contrast: int | str | None = None, coefficients: Sequence[float] = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0),
    random_directions: Positive = 5, seed: int = 0,
) -> Explanation:  # fmt: skip
    """Measure what steering does at each coefficient, to a behaviour and to text that should stay as it is.

    The behaviour is a target's score on prompts; the side effects are KL(unsteered || steered) in nats per token and
    the perplexity of neutral texts. Each is a mean over prompts or texts with a 95 % bootstrap interval, for the
    steering and for random directions of equal norm at the same places. Exact up to the draws; judged by the model's
    own scores alone (Rimsky et al. 2024, arXiv:2312.06681). Neutral texts count as prompts, or, for steering in the
    generation phase, as generated behind their first token.

    Args:
        subject: a causal language model.
        prompts: where the behaviour is scored.
        steering: a `Steering` (its coefficient is replaced), or a learned direction.
        neutral: texts of at least two tokens that have nothing to do with the behaviour.
        target: the answer that shows the behaviour; a contrast makes it a difference to another answer.
        contrast: the other answer.
        coefficients: the doses, in units of the mean norm where the operation adds; 0 is always measured.
        random_directions: how many to average over.
        seed: of random directions and bootstrap.

    Returns:
        Explanation of three Scores [method, step]: behaviour, divergence and perplexity, each with curves and bands.

    Raises:
        CapabilityError: a model that is no causal language model.
        InputError: no prompts or neutral texts, or steering by something that is no direction.
    """
    put = _checked(subject, prompts, steering, neutral)
    plan = doses_of(subject, put, coefficients, random_directions, seed)
    tokens = [subject.encode(prompt) for prompt in prompts]
    readouts = [resolve(subject, one, target, contrast) for one in tokens]
    behaviour = np.stack(
        [score_edits(subject, one, r, plan.edits)[:, 0] for one, r in zip(tokens, readouts, strict=True)], -1
    )
    divergence, losses = side_effects(subject, plan, [subject.encode(text).ids for text in neutral])
    unit = readouts[0].unit
    results = (
        plan.result("Behaviour", behaviour, unit, "larger means more of the behaviour", readouts[0].description),
        plan.result("KL on neutral text", divergence, "nats per token", "larger means a larger side effect"),
        plan.result(
            "Perplexity of neutral text", losses, "perplexity", "larger means a larger side effect", power=True
        ),
    )
    return Explanation(
        title="Dose-response of steering",
        results=results,
        target=readouts[0].description,
        notes=plan.notes(behaviour, divergence, losses, unit),
        evidence=(plan.verdict(behaviour),),
    )


def _checked(subject: Subject, prompts: Sequence[Any], given: object, neutral: Sequence[Any]) -> Steering:
    if subject.head != "causal-lm" or subject.kind != "decoder":
        raise CapabilityError(
            f"dose_response measures text, but {subject.name} is a {subject.kind} with head {subject.head}; use a "
            "causal language model."
        )
    steering = Steering.of(given) if isinstance(given, Learned) else given
    if not isinstance(steering, Steering) or steering.learned.apply != "direction":
        raise InputError(
            "dose_response compares a direction with random ones; give a Steering by a direction, such as that of "
            "mean_difference."
        )
    for name, some in (("prompts", prompts), ("neutral", neutral)):
        if isinstance(some, str) or len(some) == 0:
            raise InputError(f"dose_response needs a list of texts as {name}; give one or more.")
    return steering
