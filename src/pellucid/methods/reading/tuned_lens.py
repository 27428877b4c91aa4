"""The tuned lens: an affine translator per layer that makes the logit lens agree with the model's own answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, NonNegativeFloat, Positive, PositiveFloat, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.model_head import at_once, outputs_of
from pellucid.engine.planning import check_cancelled, report
from pellucid.engine.stored_streams import Streams, held_out, stored_streams
from pellucid.models.subject import Subject


@method(
    rows=("MEL-2",),
    paper="arXiv:2303.08112",
    takes="corpus",
    produces="learned",
    needs=("activations", "logits"),
    cost="prompts*F",
)
def tuned_lens(
    subject: Subject, prompts: Sequence[Any], *, site: SiteName = "resid_post", steps: Positive = 250,
    batch: Positive = 128, learning_rate: PositiveFloat = 3e-3, weight_decay: NonNegativeFloat = 0.0,
    test_share: Fraction = 0.2, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn, for every layer, the affine map after which the model's head says what the model will say.

    Minimises KL(softmax(head(h^L)) || softmax(head(h^l + h^l D_l + b_l))) over positions, from D = b = 0, which is the
    logit lens. All layers learn together in one loop over activations that are stored once; being independent, each
    learns what it would alone. An approximation; the evidence gives the divergence in nats on held-out prompts beside
    the logit lens's. The paper uses gradient descent with momentum; this is Adam with a linear decay (Belrose et al.
    2023, arXiv:2303.08112). The last layer at "resid_post" is the model itself and stays as it is.

    Args:
        subject: a language model of one stack, from `pellucid.load`.
        prompts: texts, chats or token ids; special tokens are left out.
        site: "resid_pre", "resid_mid" or "resid_post".
        steps: of the optimiser.
        batch: positions per step, drawn at random; all of them where there are no more.
        learning_rate: at the first step.
        weight_decay: pull of D and b towards the logit lens.
        test_share: share of the prompts that only test.
        seed: of split and batches.

    Returns:
        Learned with `matrices` [layer, dimension, dimension] (D) and `biases` [layer, dimension], for
        `logit_lens(lens=...)`.

    Raises:
        CapabilityError: a model that is no language model of one stack.
        InputError: no prompts.
        SiteError: a site that the model lacks.
    """
    streams = stored_streams(subject, prompts, site, "tuned_lens")
    rng = np.random.default_rng(seed)
    learned, tested = held_out(streams, test_share, rng)
    inputs = torch.cat([one.layers[:, one.real] for one in learned], 1)
    ends = torch.cat([one.end[one.real] for one in learned])
    free = len(inputs) - (site == "resid_post")
    matrices = torch.zeros((len(inputs), inputs.shape[-1], inputs.shape[-1]), dtype=inputs.dtype)
    biases = torch.zeros((len(inputs), inputs.shape[-1]), dtype=inputs.dtype)
    rate = (learning_rate, weight_decay)
    matrices[:free], biases[:free] = _train(subject, inputs[:free], ends, steps, batch, rate, rng)
    return Learned(
        title="Tuned lens",
        tensors={"matrices": matrices.numpy(), "biases": biases.numpy()},
        apply="affine_lens",
        site=site,
        settings={"steps": steps, "batch": batch, "learning_rate": learning_rate, "positions": len(ends)},
        evidence=(_divergences(subject, tested or learned, matrices, biases, held=bool(tested)),),
    )


def _train(
    subject: Subject, inputs: torch.Tensor, ends: torch.Tensor, steps: int, batch: int, rate: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the translators of streams [layer, n, dimension] towards the last streams [n, dimension]."""
    matrices = torch.zeros((len(inputs), inputs.shape[-1], inputs.shape[-1]), dtype=inputs.dtype, requires_grad=True)
    biases = torch.zeros((len(inputs), 1, inputs.shape[-1]), dtype=inputs.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([matrices, biases], lr=rate[0], weight_decay=rate[1])
    for step in range(steps):
        check_cancelled()
        few = batch < len(ends)
        chosen = torch.as_tensor(rng.integers(0, len(ends), batch) if few else np.arange(len(ends)))
        optimiser.param_groups[0]["lr"] = rate[0] * (1 - step / steps)
        optimiser.zero_grad()
        with torch.enable_grad():
            moved = inputs[:, chosen] + torch.baddbmm(biases, inputs[:, chosen], matrices)
            moved.backward(_slope(subject, moved.detach(), ends[chosen]))
        optimiser.step()
        report(step + 1, steps)
    return matrices.detach(), biases.detach()[:, 0]


def _slope(subject: Subject, moved: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean divergence, summed over layers, at translated vectors [layer, n, dimension]."""
    flat, rows = moved.flatten(0, 1), torch.arange(len(ends)).repeat(len(moved))
    slopes = torch.zeros_like(flat)
    aims = torch.cat([outputs_of(subject, part).to(moved).log_softmax(-1) for part in ends.split(at_once(subject))])
    for first in range(0, len(flat), at_once(subject)):
        here = slice(first, first + at_once(subject))
        part = flat[here].requires_grad_()
        said = outputs_of(subject, part, grad=True).to(moved).log_softmax(-1)
        aim = aims[rows[here]]
        loss = (aim.exp() * (aim - said)).sum() / len(ends)
        slopes[here] = torch.autograd.grad(loss, part)[0]
    return slopes.view_as(moved)


@torch.no_grad()
def _divergences(
    subject: Subject, streams: Sequence[Streams], matrices: torch.Tensor, biases: torch.Tensor, *, held: bool
) -> Evidence:
    """Return the mean divergence of each layer from the model, with the translators and without."""
    sums, count = torch.zeros((2, len(matrices)), dtype=torch.float64), 0
    for one in streams:
        for end, inputs in zip(
            one.end[one.real].split(at_once(subject)), one.layers[:, one.real].split(at_once(subject), 1), strict=True
        ):
            count += len(end)
            aim = outputs_of(subject, end).double().log_softmax(-1)
            moved = inputs + torch.baddbmm(biases[:, None], inputs, matrices)
            for kind, vectors in enumerate((inputs, moved)):
                for layer, vector in enumerate(vectors):
                    said = outputs_of(subject, vector).double().log_softmax(-1)
                    sums[kind, layer] += (aim.exp() * (aim - said)).sum().cpu()
    plain, tuned = (sums / max(count, 1)).tolist()
    better = sum(t < p for t, p in zip(tuned, plain, strict=True))
    return Evidence(
        "divergence from the model",
        f"On {count} positions of {'prompts that were not learned from' if held else 'the prompts learned from'}, the "
        f"lens is {np.mean(tuned):.3g} nats from the model on average over layers, the logit lens "
        f"{np.mean(plain):.3g}; it is nearer in {better} of {len(plain)} layers.",
        {"tuned": float(np.mean(tuned)), "logit_lens": float(np.mean(plain)), "positions": float(count)},
        {"x": tuple(float(i) for i in range(len(plain))), "tuned": tuple(tuned), "logit lens": tuple(plain)},
        ok=bool(np.mean(tuned) < np.mean(plain)) if held else None,
    )
