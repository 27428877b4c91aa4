"""Max-sensitivity: how much an explanation changes when the embeddings are moved a little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import metric
from pellucid.core.params import Positive, PositiveFloat, PromptLike, TargetLike
from pellucid.core.results import Evidence
from pellucid.engine.gradients import site_values
from pellucid.engine.targets import resolve
from pellucid.engine.variants import token_site
from pellucid.evaluate._explaining import explained, kept_target
from pellucid.models.edits import Context, Edit
from pellucid.models.subject import Subject


@metric(
    rows=("N-BM7",),
    paper="arXiv:1901.09392",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("activations",),
)
def max_sensitivity(
    subject: Subject, prompt: PromptLike, explainer: str | Callable[..., Any], *, target: TargetLike = None,
    radius: PositiveFloat = 0.02, samples: Positive = 10, seed: int = 0, settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return the largest relative change of an explanation under small noise on the embeddings.

    max over draws of |R(x + noise) - R(x)| / |R(x)| (Euclidean norms), the noise uniform in a cube of half-width
    `radius` standard deviations of the prompt's embeddings (Yeh et al. 2019, arXiv:1901.09392; ratio of norms as in
    Captum). Lower is better. There is no chance level: a constant explanation has 0, so that it is read beside a
    metric of faithfulness. NaN where the explanation is 0. A lower bound from `samples` draws. The noise belongs to
    positions, so a method that removes tokens is asked with a replacement that keeps them.

    Args:
        subject: the model, from `pellucid.load`.
        prompt: the prompt.
        explainer: the name of a method, or a function with the arguments of one.
        target: what is explained; None means what the model predicts.
        radius: half-width of the noise, in standard deviations of the embeddings.
        samples: draws of noise.
        seed: of the draws.
        settings: further parameters of the explainer.

    Returns:
        Evidence with the largest and the mean relative change.

    Raises:
        InputError: the explainer gives no finite scores.
    """
    target, settings = kept_target(subject, prompt, target), dict(settings or {})
    plain = explained(subject, prompt, explainer, target, settings).values
    tokens = subject.encode(prompt)
    embeddings = site_values(subject, tokens, resolve(subject, tokens, target))
    generator = torch.Generator().manual_seed(seed)
    changes = []
    for _ in range(samples):
        noise = 2 * torch.rand(embeddings.shape, generator=generator, dtype=torch.float64) - 1
        noise = (noise.to(embeddings) * (radius * embeddings.std())).detach()

        def moved(value: torch.Tensor, context: Context, noise: torch.Tensor = noise) -> torch.Tensor:
            return value + noise[list(context.positions)]

        near = subject.with_(Edit(token_site(subject), moved, where={"position": range(len(tokens))}))
        changes.append(np.linalg.norm(explained(near, prompt, explainer, target, settings).values - plain))
    size = float(np.linalg.norm(plain))
    relative = np.array(changes) / size if size else np.full(samples, np.nan)
    return Evidence(
        "max-sensitivity",
        f"Noise of {radius:g} standard deviations changes the explanation by up to {100 * relative.max():.2g} % of its "
        f"size in {samples} draws; less is better.",
        {"value": float(relative.max()), "mean": float(relative.mean()), "draws": float(samples)},
    )
