"""What the loss of wanted answers asks of a matrix: the inputs that it got and the gradients at its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from pellucid.core.errors import EditError
from pellucid.core.facts import Fact
from pellucid.engine.backward import frozen
from pellucid.engine.continuations import following_ids, need_speaker
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class Wanted(NamedTuple):
    """A wanted answer, teacher-forced: the ids of prompt and target but its last, the prompt's length, the target."""

    ids: tuple[int, ...]
    prompt: int
    target: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """Return the positions that predict the target."""
        return tuple(range(self.prompt - 1, self.prompt - 1 + len(self.target)))


class Factors(NamedTuple):
    """Keys [positions, neuron] and gradients [positions, dimension] of one row: its gradient is gradients' @ keys."""

    keys: torch.Tensor
    gradients: torch.Tensor


def wanted_rows(subject: Subject, asked: Sequence[tuple[str, str]]) -> list[Wanted]:
    """Return prompts with their wanted answers as rows.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: an empty answer, or a row longer than the model takes.
    """
    need_speaker(subject, "Editing facts")
    pairs = [following_ids(subject, prompt, answer) for prompt, answer in asked]
    return [Wanted((*prompt, *target[:-1]), len(prompt), target) for prompt, target in pairs]


def rows_of(subject: Subject, facts: Sequence[Fact]) -> list[Wanted]:
    """Return facts as rows."""
    return wanted_rows(subject, [(fact.text, fact.target) for fact in facts])


def loss_of(logits: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    """Return the mean over its tokens of -log p of a target, from the logits [target, vocabulary] before each."""
    ids = torch.tensor(list(target), device=logits.device)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(wide[: len(ids)], ids)


def edit_factors(subject: Subject, rows: Sequence[Wanted], layers: Sequence[DownProjection]) -> list[list[Factors]]:
    """Return per row and layer what the loss of the row's target, its mean -log p per token, asks of the matrix.

    Exact (automatic differentiation); float32 or wider.

    Raises:
        EditError: a gradient that is not finite.
    """
    sites = [site for layer in layers for site in (layer.key, layer.value)]
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[Wanted]) -> list[list[Factors]]:
        nothing = [torch.zeros((), dtype=wide, device=subject.input_device, requires_grad=True) for _ in layers]
        starts = tuple(Edit(layer.value, "add", zero) for layer, zero in zip(layers, nothing, strict=True))
        with subject.lock, frozen(subject.model), torch.enable_grad():
            output = forward(subject, [Row(row.ids, edits=starts) for row in batch], capture=sites, grad=True)
            losses = [loss_of(output.logits[i, list(row.places)], row.target) for i, row in enumerate(batch)]
            values = [output.captured[layer.value] for layer in layers]
            slopes = torch.autograd.grad(torch.stack(losses).sum(), values)
        subject.count(backwards=len(batch))
        found = []
        for i, row in enumerate(batch):
            own = []
            for layer, slope in zip(layers, slopes, strict=True):
                keys = output.row(layer.key, i).detach().to(wide)
                own.append(Factors(keys, slope[i, : len(row.ids)].detach().to(wide)))
            if not all(bool(torch.isfinite(one.gradients).all()) for one in own):
                raise EditError(
                    f"The gradient of the target {row.target} is NaN or infinite, so nothing was changed; load the "
                    "model in float32."
                )
            found.append(own)
        return found

    return in_batches(rows, [len(row.ids) for row in rows], run)
