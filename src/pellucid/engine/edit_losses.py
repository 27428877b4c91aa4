"""What an editor is trained on: the loss of answers under changed weights, and how far other prompts drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.engine.backward import frozen
from pellucid.engine.borrowed_weights import borrowed_weights
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.edit_factors import Wanted, loss_of
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Ids = tuple[int, ...]


@torch.no_grad()
def next_log_probs(subject: Subject, prompts: Sequence[Ids]) -> dict[Ids, torch.Tensor]:
    """Return the log-probabilities [vocabulary] of the next token behind each prompt, float32 or wider."""
    different = list(dict.fromkeys(prompts))

    def run(batch: list[Ids]) -> list[torch.Tensor]:
        last = torch.tensor([[len(ids) - 1] for ids in batch])
        logits = forward(subject, [Row(ids) for ids in batch], wanted=last).logits[:, 0]
        return list(logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1))

    return dict(zip(different, in_batches(different, [len(ids) for ids in different], run), strict=True))


def new_weights(matrices: Sequence[DownProjection], changes: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the changed matrices by name, in the model's own layout and dtype; differentiable in the changes."""
    pairs = zip(matrices, changes, strict=True)
    return {one.name: one.weight.detach() + one.stored(change).to(one.weight) for one, change in pairs}


def losses_under(
    subject: Subject, new: Mapping[str, torch.Tensor], asked: Sequence[Wanted], kept: Sequence[Ids],
    before: Mapping[Ids, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the mean loss of answers, and the mean KL(before | after) behind prompts to be kept, under new weights.

    Both in nats, the loss a mean over the tokens of each answer; differentiable in the weights. One batch.

    Args:
        subject: the model, which comes back untouched.
        new: values in the place of parameters, by name.
        asked: wanted answers, teacher-forced.
        kept: prompts whose next token shall stay, a key of `before` each.
        before: their log-probabilities before.
    """
    rows = [*(Row(row.ids) for row in asked), *(Row(ids) for ids in kept)]
    with frozen(subject.model), torch.enable_grad(), borrowed_weights(subject, new):
        logits = forward(subject, rows, grad=True).logits
        answers = [loss_of(logits[i, list(row.places)], row.target) for i, row in enumerate(asked)]
        drifts = []
        for i, ids in enumerate(kept, len(asked)):
            after = logits[i, len(ids) - 1].to(before[ids]).log_softmax(-1)
            drifts.append((before[ids].exp() * (before[ids] - after)).sum())
    subject.count(backwards=len(rows))
    drift = torch.stack(drifts).mean() if drifts else logits.new_zeros(())
    return torch.stack(answers).mean(), drift
