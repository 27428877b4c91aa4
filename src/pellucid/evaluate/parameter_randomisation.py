"""Parameter randomisation: whether an explanation changes when the weights are made random, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence
from pellucid.evaluate._explaining import explained, kept_target
from pellucid.evaluate._ranking import rank_correlation
from pellucid.models.layout import block_of, depth
from pellucid.models.load import subject_of
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-13",),
    paper="arXiv:1810.03292",
    takes="prompt",
    produces="evidence",
    better="lower",
    chance=0,
    needs=("weights",),
)
def parameter_randomisation(
    subject: Subject, prompt: PromptLike, explainer: str | Callable[..., Any], *, target: TargetLike = None,
    seed: int = 0, settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return how alike explanations of the model and of its randomised copies are, as a rank correlation.

    Cascading: first the head and the final norm, then the blocks from last to first, then the embeddings become random,
    each matrix drawn from a normal distribution with its own mean and spread. The value is the mean over these steps of
    Spearman's correlation of |scores| with the original (Adebayo et al. 2018, arXiv:1810.03292). Lower is better:
    an explanation that stays the same does not show what the model learned; explanations that have nothing to do with
    each other have 0. The input alone may cause more, such as one unit of several tokens. A head that is tied to the
    embedding becomes random with it. The model itself is left as it is; its edits are not applied.

    Args:
        subject: the model, from `pellucid.load`.
        prompt: the prompt.
        explainer: the name of a method, or a function with the arguments of one.
        target: what is explained; None means what the model predicts.
        seed: of the random weights.
        settings: further parameters of the explainer.

    Returns:
        Evidence with the mean, the correlation when all is random (`last`), and a curve over the steps.

    Raises:
        InputError: the explainer gives no finite scores.
    """
    target, settings = kept_target(subject, prompt, target), dict(settings or {})
    plain = subject.without_edits()
    first = np.abs(explained(plain, prompt, explainer, target, settings).values)
    with subject.lock:
        changed = copy.deepcopy(subject.model)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for part in _from_the_top(plain, changed):
        for weight in part:
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            with torch.no_grad():
                spread = weight.float().std(unbiased=False)
                weight.copy_(noise.to(weight.device) * spread + weight.float().mean())
        random = subject_of(
            changed, plain.tokenizer, name=f"{plain.name} (randomised)", layout=plain.layout, proved=False
        )
        other = np.abs(explained(random, prompt, explainer, target, settings).values)
        found.append(rank_correlation(first, other))
    value, last = float(np.mean(found)), float(found[-1])
    return Evidence(
        "parameter randomisation",
        f"Over {len(found)} steps from the head down, the explanation of the randomised model agrees with the original "
        f"by {value:.2f} (rank correlation; 0 is chance, 1 would be an explanation blind to the weights).",
        {"value": value, "last": last},
        {"x": tuple(float(i + 1) for i in range(len(found))), "correlation": tuple(float(v) for v in found)},
    )


def _from_the_top(subject: Subject, model: Any) -> Iterator[list[torch.nn.Parameter]]:
    """Yield the weights of the head, of each block from the last to the first, and of the embeddings, each once."""
    layout, seen = subject.need_layout(), set[int]()
    blocks: list[list[torch.nn.Parameter]] = []
    for name in reversed(list(layout.stacks)):
        stack = layout.stacks[name]
        for layer in reversed(range(depth(model, layout, name))):
            blocks.append([w for w in block_of(model, stack, layer)[0].parameters() if id(w) not in seen])
            seen.update(id(weight) for weight in blocks[-1])
    embeddings = list(model.get_input_embeddings().parameters())
    seen.update(id(weight) for weight in embeddings)
    yield [weight for weight in model.parameters() if id(weight) not in seen]
    yield from (block for block in blocks if block)
    yield embeddings
