"""Refusal direction: of many differences of means, the one that carries a behaviour, chosen by what it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.behaviour_tests import divergence, last_log_probs, log_odds, token_ids
from pellucid.engine.directions import contrast, unit
from pellucid.engine.orthogonal import ablated_writes
from pellucid.engine.planning import check_cancelled, report
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("N-ST2",),
    paper="arXiv:2406.11717",
    takes="labels",
    produces="learned",
    needs=("activations", "logits"),
    cost="(positions*prompts+layers*positions*prompts+prompts)*F",
)
def refusal_direction(
    subject: Subject, harmful: Sequence[Any], harmless: Sequence[Any], *, refusal: Sequence[int | str],
    positions: Sequence[int] = (-1,), layers: Sequence[int] | None = None, most_divergence: PositiveFloat = 0.1,
    deepest: Fraction = 0.8, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Find the direction that makes a model answer in one way (refuse, say), among differences of means.

    For every layer and position r = mean h(harmful) - mean h(harmless) is a candidate. On prompts held out, with the
    log-odds of the refusal tokens behind the prompt as the score: bypass = the score on harmful prompts with r
    projected out of every write, induce = the score on harmless prompts with r added in its layer, and KL of the
    ablated from the plain model on harmless prompts. The least bypass wins, among those with induce > 0, KL below the
    limit and a layer in the first 80 % (Arditi et al. 2024, arXiv:2406.11717). Works for any behaviour with such
    tokens. The choice is exact on these prompts; where no candidate qualifies that is said, and the least bypass taken.

    Args:
        subject: a pre-norm causal language model of one stack.
        harmful: prompts that the model answers in that way.
        harmless: prompts that it does not.
        refusal: the tokens, as texts or ids, that begin such an answer.
        positions: where to read, from the end of the prompt.
        layers: candidate blocks; None means all.
        most_divergence: largest KL in nats.
        deepest: share of the layers that may be chosen.
        test_share: share of the prompts that choose.
        seed: of the split.

    Returns:
        Learned as of `mean_difference`, `directions` [layer, dimension] being those of the chosen position; `scales`
        are their own lengths, so that `Steering(operation="add")` with coefficient 1 adds r itself. The evidence holds
        the three scores of every candidate.

    Raises:
        InputError, TargetError: too few prompts to hold any out, or a refusal text of several tokens.
    """
    ids = token_ids(subject, refusal)
    found = [
        contrast(subject, harmful, harmless, "resid_post", layers=layers, position=p, test_share=test_share, seed=seed)
        for p in positions
    ]
    held, labels = found[0].held, found[0].labels
    if not held.any():
        raise InputError(
            f"refusal_direction chooses on prompts held out, but {len(harmful)} and {len(harmless)} prompts leave "
            "none; give at least four of each."
        )
    everything = [*harmful, *harmless]
    bad, good = ([everything[i] for i in np.flatnonzero(held & (labels == label))] for label in (1, 0))
    raw = np.stack([one.positive.mean(1) - one.negative.mean(1) for one in found])
    read = found[0].read.layers
    scores = _scores(subject, raw, read, (bad, good), ids)
    chosen, fit = _chosen(scores, np.array(read) < deepest * subject.layers, most_divergence)
    plain = tuple(float(log_odds(last_log_probs(subject, some), ids).mean()) for some in (bad, good))
    return Learned(
        title="Refusal direction",
        tensors={"directions": unit(raw[chosen[0]]), "scales": np.linalg.norm(raw[chosen[0]], axis=-1)},
        apply="direction",
        site="resid_post",
        settings={"layers": list(read), "layer": read[chosen[1]], "position": int(positions[chosen[0]])},
        evidence=(_told(scores, chosen, read, int(positions[chosen[0]]), plain, fit),),
    )


def _scores(
    subject: Subject, raw: np.ndarray, layers: tuple[int, ...], prompts: tuple[list[Any], list[Any]], ids: list[int]
) -> np.ndarray:
    """Return bypass, induce and divergence of candidates [position, layer, dimension]: [3, position, layer]."""
    (bad, good), scores = prompts, np.zeros((3, *raw.shape[:2]))
    own = last_log_probs(subject, good)
    for number, (p, at) in enumerate(np.ndindex(*raw.shape[:2])):
        check_cancelled()
        vector = torch.as_tensor(raw[p, at])
        ablation = ablated_writes(subject, vector)
        addition = (Edit(f"blocks.{layers[at]}.resid_post", "add", vector),)
        scores[0, p, at] = log_odds(last_log_probs(subject, bad, ablation), ids).mean()
        scores[1, p, at] = log_odds(last_log_probs(subject, good, addition), ids).mean()
        scores[2, p, at] = divergence(own, last_log_probs(subject, good, ablation))
        report(number + 1, raw.shape[0] * raw.shape[1])
    return scores


def _chosen(scores: np.ndarray, early: np.ndarray, most_divergence: float) -> tuple[tuple[int, int], bool]:
    """Return the place [position, layer] of least bypass among those that qualify, and whether any does."""
    fit = (scores[1] > 0) & (scores[2] < most_divergence) & early[None]
    allowed = fit if fit.any() else np.broadcast_to(early[None], fit.shape)
    place = np.unravel_index(np.argmin(np.where(allowed, scores[0], np.inf)), fit.shape)
    return (int(place[0]), int(place[1])), bool(fit.any())


def _told(
    scores: np.ndarray, chosen: tuple[int, int], read: tuple[int, ...], position: int, plain: tuple[float, ...],
    fit: bool,
) -> Evidence:  # fmt: skip
    bypass, induce, moved = (float(one[chosen]) for one in scores)
    names = ("bypass", "induce", "divergence")
    return Evidence(
        "bypass and induce",
        f"Ablating the direction of layer {read[chosen[1]]} at position {position} takes the log-odds of the tokens on "
        f"harmful prompts from {plain[0]:.3g} to {bypass:.3g}; adding it takes them on harmless ones from "
        f"{plain[1]:.3g} to {induce:.3g}; ablation moves the harmless outputs by {moved:.3g} nats"
        + ("." if fit else "; no candidate met all three conditions."),
        {"bypass": bypass, "induce": induce, "divergence": moved, "harmful": plain[0], "harmless": plain[1]},
        {
            "x": tuple(map(float, read)),
            **{n: tuple(one[chosen[0]].tolist()) for n, one in zip(names, scores, strict=True)},
        },
        ok=fit and bypass < plain[0],
    )
