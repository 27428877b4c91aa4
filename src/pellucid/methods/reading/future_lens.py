"""The future lens: how much of the tokens after the next one can be read off a single position's stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, NonNegativeFloat, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.model_head import at_once, outputs_of
from pellucid.engine.stored_streams import Streams, held_out, stored_streams
from pellucid.models.subject import Subject

Pairs = tuple[torch.Tensor, torch.Tensor]


@method(
    rows=("MEL-4",),
    paper="arXiv:2311.04897",
    takes="corpus",
    produces="learned",
    needs=("activations", "logits"),
    cost="prompts*F",
)
def future_lens(
    subject: Subject, prompts: Sequence[Any], *, ahead: Count = 1, site: SiteName = "resid_post",
    penalty: NonNegativeFloat = 0.01, test_share: Fraction = 0.2, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn, for every layer, the linear map from a position's stream to the last stream some positions later.

    Minimises |h_(t+N)^L - W_l h_t^l - b_l|^2 + penalty over positions t, N = `ahead`, in closed form; the model's head
    then reads token t + N + 1 off position t (`ahead=0` is the next token). An approximation; the evidence says on
    held-out prompts how often that token is the one the model will predict there, for each layer (the linear method of
    Pal et al. 2023, arXiv:2311.04897).

    Args:
        subject: a decoder, from `pellucid.load`.
        prompts: texts, chats or token ids; special tokens are left out.
        ahead: how many positions later.
        site: "resid_pre", "resid_mid" or "resid_post".
        penalty: ridge, as a share of the mean variance of the inputs.
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned with `matrices` (W - 1) [layer, dimension, dimension] and `biases` [layer, dimension], for
        `logit_lens(lens=...)`.

    Raises:
        CapabilityError: a model that is no language model of one stack.
        InputError: no prompts, or none longer than `ahead`.
        SiteError: a site that the model lacks.
    """
    streams = stored_streams(subject, prompts, site, "future_lens")
    learned, tested = held_out(streams, test_share, np.random.default_rng(seed))
    inputs, ends = _pairs(learned, ahead)
    if not len(ends):
        raise InputError(
            f"The future lens looks {ahead} positions ahead, but no prompt to learn from is longer; give longer ones."
        )
    matrices, biases = zip(*(_ridge(layer.double(), ends.double(), penalty) for layer in inputs), strict=True)
    unit = torch.eye(inputs.shape[-1], dtype=torch.float64)
    lens = (torch.stack(matrices).to(inputs), torch.stack(biases).to(inputs))
    return Learned(
        title=f"Future lens, {ahead} ahead",
        tensors={"matrices": (lens[0] - unit.to(inputs)).numpy(), "biases": lens[1].numpy()},
        apply="affine_lens",
        site=site,
        settings={"ahead": ahead, "penalty": penalty, "positions": len(ends)},
        evidence=(_agreement(subject, _pairs(tested or learned, ahead), lens, ahead, held=bool(tested)),),
    )


def _pairs(streams: Sequence[Streams], ahead: int) -> Pairs:
    """Return the streams [layer, n, dimension] and the last streams [n, dimension] so many positions later."""
    inputs = [one.layers[:, one.real][:, : max(0, int(one.real.sum()) - ahead)] for one in streams]
    return torch.cat(inputs, 1), torch.cat([one.end[one.real][ahead:] for one in streams])


def _ridge(inputs: torch.Tensor, aims: torch.Tensor, penalty: float) -> Pairs:
    """Return W [in, out] and b of the least squares fit, W drawn towards zero; the intercept is free."""
    middle, aim = inputs.mean(0), aims.mean(0)
    centred = inputs - middle
    gram = centred.T @ centred / len(inputs)
    size = gram.diagonal().mean().clamp(min=1e-12)
    gram = gram + max(penalty, 1e-9) * size * torch.eye(len(gram), dtype=gram.dtype)
    matrix = torch.linalg.solve(gram, centred.T @ (aims - aim) / len(inputs))
    return matrix, aim - middle @ matrix


@torch.no_grad()
def _agreement(subject: Subject, pairs: Pairs, lens: Pairs, ahead: int, *, held: bool) -> Evidence:
    """Return how often each layer's reading is what the model predicts, and how often the commonest token is."""
    said = _best(subject, pairs[1])
    found = [
        float((_best(subject, x @ w + b) == said).double().mean()) if len(said) else 0.0
        for x, w, b in zip(pairs[0], *lens, strict=True)
    ]
    common = float(np.bincount(said.numpy()).max() / len(said)) if len(said) else 0.0
    best = int(np.argmax(found))
    return Evidence(
        "agreement with the model",
        f"On {len(said)} positions of {'prompts that were not learned from' if held else 'the prompts learned from'}, "
        f"layer {best} reads what the model will predict {ahead} positions later in {100 * found[best]:.0f} % of them; "
        f"always naming the commonest token is right in {100 * common:.0f} %.",
        {"best": found[best], "layer": float(best), "commonest": common, "positions": float(len(said))},
        {"x": tuple(float(i) for i in range(len(found))), "agreement": tuple(found)},
        ok=bool(found[best] > common) if held else None,
    )


def _best(subject: Subject, vectors: torch.Tensor) -> torch.Tensor:
    parts = vectors.split(at_once(subject)) if len(vectors) else ()
    found = [outputs_of(subject, part).argmax(-1).cpu() for part in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)
