"""How far two models with the same tokens part on given texts, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Parting:
    """Two models on one text: [positions] each, the last position predicting what follows the text.

    `kl` is KL(first || second) of the next-token distributions in nats, `same` whether both have the same likeliest
    token; `losses` [2, positions - 1] are -log p of the text's own tokens from the second on.
    """

    kl: np.ndarray
    same: np.ndarray
    losses: np.ndarray


def same_tokens(first: Subject, second: Subject) -> None:
    """Raise `InputError` where two subjects do not share their token ids."""
    if first.vocabulary != second.vocabulary:
        raise InputError(
            f"{first.name} has {first.vocabulary} token ids and {second.name} {second.vocabulary}; give one model "
            "before and after its change."
        )


@torch.no_grad()
def parting(
    first: Subject, second: Subject, texts: Sequence[tuple[int, ...]], others: Sequence[tuple[int, ...]] | None = None,
    *, last: bool = False,
) -> list[Parting]:  # fmt: skip
    """Compare two causal language models on texts given as ids, their edits active; equal texts are run once. Exact.

    Args:
        first: the model before.
        second: the model after.
        texts: token ids of each.
        others: the ids in which the second model reads the same texts, where it reads something before them; what is
            compared are the last positions, as many as the shorter has.
        last: compare behind the last token alone; `losses` are then empty.

    Raises:
        InputError: models with other tokens.
    """
    same_tokens(first, second)
    pairs = list(zip(texts, texts if others is None else others, strict=True))
    different = list(dict.fromkeys(pairs))

    def run(batch: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Parting]:
        both = []
        for side, one in enumerate((first, second)):
            rows = [Row(pair[side]) for pair in batch]
            wanted = torch.tensor([[len(row.ids) - 1] for row in rows]) if last else None
            logits = forward(one, rows, wanted=wanted).logits
            ends = [1 if last else len(row.ids) for row in rows]
            both.append([logits[i, :end].double().cpu().log_softmax(-1) for i, end in enumerate(ends)])
        found = []
        for pair, whole, other in zip(batch, *both, strict=True):
            size, ids = min(len(whole), len(other)), min(pair, key=len)
            p, q = whole[-size:], other[-size:]
            following = torch.tensor([] if last else ids[1:], dtype=torch.long)[:, None]
            losses = [-logs[: len(following)].gather(-1, following)[:, 0].numpy() for logs in (p, q)]
            kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
            found.append(Parting(kl.numpy(), (p.argmax(-1) == q.argmax(-1)).numpy(), np.stack(losses)))
        return found

    answers = in_batches(different, [max(map(len, pair)) for pair in different], run)
    known = dict(zip(different, answers, strict=True))
    return [known[pair] for pair in pairs]
