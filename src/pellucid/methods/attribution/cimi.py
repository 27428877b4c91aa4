"""CIMI: a learned mask of the tokens that keep the output when all others become noise."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Positive, PositiveFloat, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.mask_networks import MaskNetworks
from pellucid.engine.question import Question, ask
from pellucid.models.subject import Subject

NOISE = 0.2
CHECKS = 4


@method(
    rows=("FAS-5",),
    paper="doi:10.1145/3580305.3599240",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(networks*(2*steps+9)+3)*F+(networks*(2*steps+9)+1)*targets*B",
)
def cimi(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", steps: Positive = 60, learning_rate: PositiveFloat = 0.02,
    intervention: NonNegativeFloat = 1.0, prior: NonNegativeFloat = 0.2, sparsity: NonNegativeFloat = 1.0,
    networks: Positive = 4, seed: int = 0,
) -> Scores:  # fmt: skip
    """Learn for each unit how much of it must stay for the target to stay, the rest being noise.

    A small network gives each unit a mask m = c(e, h) from its embeddings e and last hidden states h. It is trained on
    the prompt by three losses: sufficiency, ((f(m e + (1-m) u) - f(e)) / f0)^2 less the same (at most 1) with m and 1-m
    exchanged, where u are embeddings of random tokens and f0 is the change when all is noise; intervention: c must stay
    when what it leaves out moves towards u; and causal prior: with u in the place of e it must be smaller
    (Wu et al. 2023, whose c is trained on a data set and then serves any of its texts). These alone are content with a
    mask that keeps everything, so the mean mask is a loss of its own here. 0 is noise, 1 is needed; unsigned. An
    approximation by training, which can end in different masks, hence several networks; the evidence says how much of
    the change mask and complement keep.

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        steps: steps of Adam.
        learning_rate: of Adam.
        intervention: weight of the intervention loss.
        prior: weight of the causal prior loss.
        sparsity: weight of the mean mask.
        networks: how many networks are trained side by side; the scores are their mean.
        seed: of the networks and the noise.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, whose tokens are explained together by one mask;
        with standard errors over the networks.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    state = MaskNetworks(question, networks, seed)
    whole = state.read(state.end[None])[0][0]
    scale = (state.read(state.replaced(state.noise()))[0] - whole).norm(dim=-1).mean().clamp_min(1e-6)
    optimiser = torch.optim.Adam(state.weights, lr=learning_rate)
    for _ in range(steps):
        noise, other = state.noise(), state.replaced(state.noise())
        logits = state.logits(state.end)
        points = state.mixed(torch.sigmoid(logits), noise)
        values, gradients = state.read(points.detach())
        gaps = (values - whole) / scale
        counted = torch.stack([torch.ones(networks), -1.0 * (gaps[:, 1].norm(dim=1) < 1)], dim=1)
        # The model's own gradient carries the loss back to the mask: d gap^2 / d point = 2 gap / scale * d f / d point.
        pull = torch.einsum("ks,kst,kstpd->kspd", counted, 2 * gaps / scale, gradients)
        left_out = state.spread(1 - torch.sigmoid(logits.detach()))
        moved = state.end + left_out * NOISE * torch.rand(1, generator=state.random) * (other - state.end)
        change = torch.sigmoid(state.logits(moved)) - torch.sigmoid(logits)
        smaller = logsigmoid(logits.detach() - state.logits(other)).mean(1)
        size = torch.sigmoid(logits).mean(1)
        rules = intervention * change.pow(2).sum(1) - prior * smaller + sparsity * size
        optimiser.zero_grad()
        ((pull * points).sum() + rules.sum()).backward()
        optimiser.step()
    return _answer(question, state, whole, scale)


def _answer(question: Question, state: MaskNetworks, whole: torch.Tensor, scale: torch.Tensor) -> Scores:
    with torch.no_grad():
        masks = torch.sigmoid(state.logits(state.end))
        mean = masks.mean(0, keepdim=True).expand_as(masks)
        points = torch.cat([state.mixed(mean, state.noise()) for _ in range(CHECKS)])
    kept, dropped = ((state.read(points)[0] - whole).norm(dim=-1) / scale).mean(0).tolist()
    check = Evidence(
        "sufficiency",
        f"With noise outside the mask the target moves by {100 * kept:.0f} %, and with noise inside it by "
        f"{100 * dropped:.0f} %, of its change when all is noise.",
        {"outside": kept, "inside": dropped},
        ok=bool(kept < dropped),
    )
    each = np.repeat(masks.double().numpy()[..., None], question.readout.size, axis=2)
    error = standard_error(each) if len(each) > 1 else None
    sign = "0 can be noise, 1 must stay; unsigned"
    return question.answer(each.mean(0), "CIMI", std_error=error, unit="mask", sign=sign).with_evidence(check)
