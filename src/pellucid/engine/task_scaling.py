"""Attention over a model's last states, scaled per word type for a task: its parts, and how they are fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from pellucid.core.errors import ModelError
from pellucid.engine.capture import capture
from pellucid.engine.variants import token_site
from pellucid.models.layout import depth, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

FILTERS = 15
RATE = 0.02


@dataclass(frozen=True, eq=False)
class States:
    """A prompt as the head sees it: token ids, their embeddings and the model's last states, [tokens, dimension].

    Several prompts have a leading axis, and `mask` says which places are tokens.
    """

    ids: torch.Tensor
    embeddings: torch.Tensor
    states: torch.Tensor
    mask: torch.Tensor


def states_of(subject: Subject, prompt: Any) -> States:
    """Return what the head reads of a prompt: the embeddings before positions, and the last block's stream."""
    layout, tokens = subject.need_layout(), subject.encode(prompt)
    stack = "encoder." if main_stack(layout) == "decoder" else ""
    last = depth(subject.model, layout, "encoder" if stack else None) - 1
    sites = [token_site(subject), f"{stack}blocks.{last}.resid_post"]
    found = capture(subject, tokens, sites)
    ids = torch.tensor(tokens.ids)
    return States(ids, *(found[site].float().cpu() for site in sites), torch.ones_like(ids, dtype=torch.bool))


def together(data: Sequence[States]) -> States:
    """Return several prompts as one, padded behind."""
    names = ("ids", "embeddings", "states", "mask")
    return States(*(pad_sequence([getattr(one, name) for one in data], batch_first=True) for name in names))


def parts(found: States, head: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return attention [tokens], scales [tokens] and what each token says for each class [tokens, classes].

    attention = softmax(h . q / sqrt(d)), the scale is 1 without `scale`, and tokens say W h; logits are the sum over
    tokens of attention * scale * W h, and a bias.
    """
    states = (found.states - head["mean"]) / head["spread"]
    scores = (states @ head["query"] / states.shape[-1] ** 0.5).masked_fill(~found.mask, -torch.inf)
    attention = scores.softmax(-1)
    return attention, scale_of(found, head), states @ head["weights"].T


def scale_of(found: States, head: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return how much each token counts for the task, by its type alone: [tokens]; 0 for types not learned from."""
    if "scale" not in head:
        return torch.ones(found.ids.shape)
    place = torch.searchsorted(head["ids"], found.ids).clamp(max=len(head["ids"]) - 1)
    known = (head["ids"][place] == found.ids).float()
    by_type = head["scale"][:, None] if head["scale"].dim() == 1 else head["scale"]
    scaled = found.embeddings * by_type[place] * known[..., None]
    if "filters" in head:
        return (scaled @ head["filters"].T + head["offsets"]).sum(-1) * known
    return scaled.sum(-1)


def logits_of(found: States, head: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a prompt: [classes]; of several: [prompts, classes]."""
    attention, scale, said = parts(found, head)
    return ((attention * scale)[..., None] * said).sum(-2) + head["bias"]


def fit_head(
    data: Sequence[States], labels: Sequence[int], scaling: str, steps: int, decay: float, seed: int
) -> dict[str, np.ndarray]:
    """Fit a head by gradient descent on the cross-entropy of all prompts together; `scaling` "none" has no scales.

    Raises:
        ModelError: the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    stacked, batch = torch.cat([one.states for one in data]), together(data)
    width, classes = stacked.shape[1], max(labels) + 1
    ids = torch.unique(torch.cat([one.ids for one in data]))
    fixed = {"mean": stacked.mean(0), "spread": stacked.std(0).clamp(min=1e-6), "ids": ids}

    def drawn(*shape: int, size: float) -> torch.Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1) * size

    learned = {"query": drawn(width, size=width**-0.5), "weights": drawn(classes, width, size=width**-0.5)}
    learned["bias"] = torch.zeros(classes)
    if scaling != "none":
        learned["scale"] = drawn(*((len(ids), width) if scaling == "feat" else (len(ids),)), size=len(ids) ** -0.5)
    if scaling == "conv":
        learned |= {"filters": drawn(FILTERS, width, size=width**-0.5), "offsets": drawn(FILTERS, size=width**-0.5)}
    leaves = [value.requires_grad_() for value in learned.values()]
    optimiser, right = torch.optim.AdamW(leaves, lr=RATE, weight_decay=decay), torch.tensor(labels)
    with torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(logits_of(batch, learned | fixed), right)
            if not bool(torch.isfinite(loss)):
                raise ModelError("The loss of the scaled head is no longer finite; check the states of the model.")
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return {name: value.detach().numpy() for name, value in (learned | fixed).items()}


def as_tensors(head: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return a saved head's arrays as tensors."""
    return {name: torch.from_numpy(np.array(value)) for name, value in head.items()}


def accuracy(data: Sequence[States], labels: Sequence[int], head: Mapping[str, np.ndarray]) -> float:
    """Return the share of prompts whose label has the highest logit."""
    predicted = logits_of(together(data), as_tensors(head)).argmax(-1)
    return float((predicted == torch.tensor(labels)).float().mean())
