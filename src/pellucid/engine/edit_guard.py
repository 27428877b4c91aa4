"""What an edit of weights does beside its purpose: how large it is, and how far it moves the model on neutral text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine.own_text import own_texts
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.weight_edits import inspect_weights

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

MOST_RATIO, MOST_DRIFT = 0.5, 0.1
TEXTS, LENGTH = 8, 32


def guard(subject: Subject, edit: WeightEdit, texts: Sequence[Any] | None = None, seed: int = 0) -> Evidence:
    """Return the norm ratios of an edit and the drift that it causes on neutral text, not ok where one is large.

    The drift is KL(before | after) of the next token, in nats, averaged over the tokens of the texts; perplexity is
    given before and after. An edit is not ok where a matrix changes by more than half of its norm, or the drift exceeds
    0.1 nats.

    Args:
        subject: the model before the edit.
        edit: the edit.
        texts: neutral prompts; None means eight texts that the model writes itself.
        seed: of the model's own texts.
    """
    if texts is None:
        rows = own_texts(subject, TEXTS, LENGTH, seed)
    else:
        rows = [ids for ids in (subject.encode(text).ids for text in texts) if len(ids) > 1]
    drift, before, after = drifted(subject, subject.with_(edit), rows)
    table = inspect_weights(subject, edit)
    values = {f"norm ratio of {row[0]}": float(row[-1]) for row in table.rows}
    worst = max(values.values(), default=0.0)
    values |= {"drift (nats)": drift, "perplexity before": before, "perplexity after": after}
    ok = worst <= MOST_RATIO and drift <= MOST_DRIFT
    warning = "" if ok else "; this is much, so check what else has changed"
    return Evidence(
        name="side effects",
        summary=f"The edit changes a matrix by {worst:.3g} of its norm, moves neutral text by {drift:.3g} nats a token "
        f"and its perplexity from {before:.4g} to {after:.4g}{warning}.",
        values=values,
        ok=ok,
    )


@torch.no_grad()
def drifted(before: Subject, after: Subject, rows: Sequence[tuple[int, ...]]) -> tuple[float, float, float]:
    """Return the mean KL(before | after) per token in nats, and the perplexity of the rows before and after."""

    def run(batch: list[tuple[int, ...]]) -> list[torch.Tensor]:
        old, new = (forward(subject, [Row(ids) for ids in batch]).logits for subject in (before, after))
        found = []
        for i, ids in enumerate(batch):
            one, two = (logits[i, : len(ids) - 1].double().log_softmax(-1) for logits in (old, new))
            following = torch.tensor(ids[1:], device=one.device)[:, None]
            drift = (one.exp() * (one - two)).sum()
            found.append(torch.stack([drift, -one.gather(-1, following).sum(), -two.gather(-1, following).sum()]).cpu())
        return found

    total = torch.stack(in_batches(rows, [len(ids) for ids in rows], run)).sum(0)
    count = max(1, sum(len(ids) - 1 for ids in rows))
    drift, old, new = (float(value) / count for value in total)
    return drift, float(torch.tensor(old).exp()), float(torch.tensor(new).exp())
