"""The loss of chosen tokens of given texts, under edits of each text's own: what an ablation does to a behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Text:
    """Token ids and the positions, from 1, of the tokens whose loss counts."""

    ids: tuple[int, ...]
    scored: tuple[int, ...]


@torch.no_grad()
def token_losses(
    subject: Subject, texts: Sequence[Text], edits: Sequence[tuple[Edit, ...]] | None = None
) -> list[np.ndarray]:
    """Return -log p(token | tokens before it) of the scored tokens of each text, in nats; `edits[i]` act on text i.

    `subject` is a causal language model. Exact.
    """

    def run(batch: list[int]) -> list[np.ndarray]:
        most = max(len(texts[i].scored) for i in batch)
        places = [[p - 1 for p in texts[i].scored] + [0] * (most - len(texts[i].scored)) for i in batch]
        rows = [Row(texts[i].ids, edits=edits[i] if edits else ()) for i in batch]
        logits = forward(subject, rows, wanted=torch.tensor(places)).logits
        found = []
        for number, i in enumerate(batch):
            following = torch.tensor([texts[i].ids[p] for p in texts[i].scored], device=logits.device)
            log_probs = logits[number, : len(following)].double().log_softmax(-1)
            found.append(-log_probs.gather(-1, following[:, None])[:, 0].cpu().numpy())
        return found

    return in_batches(range(len(texts)), [len(text.ids) for text in texts], run)


def without_heads(means: Mapping[int, torch.Tensor], heads: Sequence[tuple[int, int]]) -> tuple[Edit, ...]:
    """Return the edits that put the mean output [head, width] of its layer in the place of each (layer, head)."""
    return tuple(Edit(f"blocks.{at}.attn.z", "set", means[at][[head]], {"head": [head]}) for at, head in heads)
