"""Truth Forest (TrFr): several orthogonal probes per head, learned from positions peeked at at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PositiveFloat
from pellucid.core.results import Learned
from pellucid.engine.batched_probes import logistic_probes
from pellucid.engine.directions import contrast
from pellucid.engine.head_probes import head_result, probed_heads
from pellucid.models.subject import Subject


@method(
    rows=("STR-3",),
    paper="arXiv:2312.17484",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def truth_forest(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, heads: Positive = 48, probes: Positive = 2,
    peek: Positive = 4, layers: Sequence[int] | None = None, strength: PositiveFloat = 1.0,
    test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Find, for the heads that tell two sets of prompts apart, several orthogonal directions to shift them in.

    Each prompt is read at a random one of its last positions (random peek), so that the directions do not depend on the
    end of the text. Per head, probes are fitted one after the other, each on what is orthogonal to those before;
    `Steering` adds coefficient * the sum of sigma_k theta_k, theta_k being the unit weights of the k-th probe and
    sigma_k the spread along it (Chen et al. 2023, arXiv:2312.17484). The paper asks for orthogonality by a penalty;
    here it is exact. All heads are fitted in one batched solve per probe. Where reading cuts a prompt, an encoder sees
    the shorter text.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts with the property.
        negative: prompts without it.
        heads: how many to choose by the first probe.
        probes: directions per head.
        peek: how many of the last positions may be read; 1 is the last alone.
        layers: which blocks; None means all.
        strength: of the data against the probes' penalty, scikit-learn's C.
        test_share: share of the prompts that only test.
        seed: of positions and split.

    Returns:
        Learned as of `inference_time_intervention`, `directions` being [layer, head, probe, width] and `scales`
        [layer, head, probe].

    Raises:
        InputError: an empty set.
        SiteError: a layer that the model lacks.
    """
    rng = np.random.default_rng(seed)
    cut = [[_peeked(subject, prompt, peek, rng) for prompt in some] for some in (positive, negative)]
    data = contrast(subject, *cut, "attn.z", layers=layers, test_share=test_share, seed=seed)
    values = data.read.values
    found = probed_heads(values, data.labels, data.held, strength)
    flat = torch.as_tensor(np.moveaxis(values[:, ~data.held], 2, 1)).double().flatten(0, 1)
    directions = _orthogonal(flat, torch.as_tensor(data.labels[~data.held]), min(probes, values.shape[-1]), strength)
    spread = torch.einsum("hpw,hkw->hkp", flat, directions).std(-1, correction=0)
    shape = (values.shape[0], values.shape[2])
    return head_result(
        "Truth Forest", data, found, heads, directions.unflatten(0, shape).numpy(), spread.unflatten(0, shape).numpy(),
        settings={"strength": strength, "peek": peek},
    )  # fmt: skip


def _peeked(subject: Subject, prompt: Any, peek: int, rng: np.random.Generator) -> list[int]:
    """Return the ids of a prompt up to a random one of its last positions."""
    ids = list(subject.encode(prompt).ids)
    return ids[: len(ids) - int(rng.integers(min(peek, len(ids))))]


def _orthogonal(values: torch.Tensor, labels: torch.Tensor, count: int, strength: float) -> torch.Tensor:
    """Return unit weights [set, probe, width] of probes, each fitted to what is orthogonal to those before."""
    taken = values.new_zeros(len(values), 0, values.shape[-1])
    for _ in range(count):
        left = values - values @ taken.mT @ taken
        weights = logistic_probes(left, labels, strength=strength).weights
        weights = weights - ((weights[:, None] @ taken.mT) @ taken)[:, 0]
        weights = weights / weights.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        taken = torch.cat([taken, weights[:, None]], 1)
    return taken
