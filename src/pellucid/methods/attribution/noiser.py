"""Noiser: how well the target withstands bounded noise on the embeddings of one unit."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.cone import score_edits
from pellucid.engine.question import ask
from pellucid.engine.variants import token_site
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("N-AT4",),
    paper="arXiv:2504.02911",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("activations",),
    cost="(units*samples+3)*F",
)
def noiser(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", noise: PositiveFloat = 1.0, samples: Positive = 12,
    of: Literal["change", "drop"] = "change", seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the change of the target under bounded noise on that unit's embeddings alone.

    Noise is uniform in [-b, b] per dimension with b = noise * root mean square of the token's embedding, so it never
    exceeds b. of="change": R_i = sqrt(mean_k (s(x) - s(x + eps_ik))^2), unsigned; for small noise
    noise * rms(e_i) / sqrt(3) * |gradient_i|. of="drop": R_i = s(x) - mean_k s(x + eps_ik), positive where noise lowers
    the target; 0 on average where s is linear. Sampled, with standard errors (those of "change" by the delta method)
    (Ghasemi Madani et al. 2025, arXiv:2504.02911).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. The paper takes probabilities:
            `Target(measure="prob")`.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        noise: bound of the noise, in root mean squares of each embedding.
        samples: draws per unit.
        of: what is averaged.
        seed: of the noise; the same draws for every unit.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    embeddings = question.embeddings()
    generator = torch.Generator().manual_seed(seed)
    draws = 2 * torch.rand((samples, *embeddings.shape), generator=generator) - 1
    bound = noise * embeddings.float().square().mean(-1).sqrt()
    added = draws.to(bound) * bound[None, :, None]
    site = token_site(question.subject)
    edits = [
        (Edit(site, "add", one[start:end], {"position": tuple(range(start, end))}),)
        for start, end in question.units.spans
        for one in added
    ]
    scored = score_edits(question.subject, question.tokens, question.readout, [(), *edits])
    drops = (scored[:1] - scored[1:]).reshape(len(question.units), samples, -1).swapaxes(0, 1)
    if of == "drop":
        return question.answer(drops.mean(0), "Noiser", std_error=standard_error(drops))
    values = np.sqrt((drops**2).mean(0))
    error = standard_error(drops**2) / (2 * np.maximum(values, 1e-12))
    sign = "larger means the target withstands noise on the unit less"
    return question.answer(values, "Noiser", std_error=error, sign=sign)
