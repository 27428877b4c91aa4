"""A memory of facts beside a model: a learned scope says which of them a place asks for, a learned map answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.errors import CapabilityError
from pellucid.core.facts import as_facts
from pellucid.core.results import Learned
from pellucid.engine.edit_factors import rows_of
from pellucid.engine.editor_check import need_editor
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

APPLY = "scoped_memory"


@torch.no_grad()
def states_of(subject: Subject, texts: Sequence[tuple[int, ...]], site: str) -> list[torch.Tensor]:
    """Return what stands at a site of the stream in each text: [positions, dimension], float32 or wider."""
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[tuple[int, ...]]) -> list[torch.Tensor]:
        output = forward(subject, [Row(ids) for ids in batch], capture=[site], stop=True)
        return [output.row(site, i).to(wide) for i in range(len(batch))]

    return in_batches(texts, [len(ids) for ids in texts], run)


def distances(parts: Mapping[str, torch.Tensor], entries: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return |A (x - m) / s - A (e - m) / s|^2 for states x and entries e: [states, entries].

    `parts` has A as `scope` [rank, dimension], m as `mean` [dimension] and s as `deviation`. The belief that x is in
    the scope of e is exp of minus this. Differentiable.
    """
    here, there = (((x - parts["mean"]) / parts["deviation"]) @ parts["scope"].T for x in (states, entries))
    # Without the matrix product, so that a state is at no distance from itself.
    return torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist").square()


def additions(parts: Mapping[str, torch.Tensor], directions: torch.Tensor) -> torch.Tensor:
    """Return what makes the stream say tokens, s (W u + b) for their unit directions u: [tokens, dimension]."""
    return parts["deviation"] * (directions @ parts["weight"].T + parts["bias"])


def token_directions(subject: Subject, tokens: Sequence[int], dimension: int) -> torch.Tensor:
    """Return the unit rows of the unembedding of some tokens: [tokens, dimension].

    Raises:
        CapabilityError: an unembedding that does not read the residual stream's own components.
    """
    weight = subject.model.get_output_embeddings().weight
    if weight.ndim != 2 or weight.shape[1] != dimension:
        raise CapabilityError(
            f"A scoped memory writes tokens along their rows of the unembedding, but that of {subject.name} has the "
            f"shape {tuple(weight.shape)} for a stream of {dimension}; use grace."
        )
    wide = torch.promote_types(weight.dtype, torch.float32)
    rows = weight.detach()[torch.tensor(list(tokens), device=weight.device)].to(wide)
    return rows / rows.norm(dim=1, keepdim=True)


def scoped_edit(subject: Subject, editor: Learned, facts: Any, *, least: float = 0.5) -> Edit:
    """Return the edit that remembers facts: `subject.with_(scoped_edit(subject, editor, facts))`.

    Nothing is trained: facts only join the memory, an entry for each token of a target. At every position the stream
    gets the addition of the entry that is believed most, where that belief exceeds `least`, and stays, bit for bit,
    elsewhere. Of two facts with one prompt the later holds.

    Args:
        subject: the model that the editor was learned for.
        editor: what serac returned.
        facts: `Fact(prompt, subject, target)` or a list of them.
        least: the belief above which a position is in scope, from 0 to 1; 1 changes nothing.

    Raises:
        EditError: something else than such an editor, or one of other weights.
    """
    need_editor(subject, editor, APPLY, "serac")
    rows = rows_of(subject, as_facts(facts))
    held: dict[tuple[int, ...], tuple[torch.Tensor, int]] = {}
    for row, states in zip(rows, states_of(subject, [row.ids for row in rows], editor.site), strict=True):
        for i, token in enumerate(row.target):
            held[row.ids[: row.prompt + i]] = (states[row.prompt - 1 + i], token)
    entries = torch.stack([state for state, _ in held.values()])
    parts = {name: torch.as_tensor(np.asarray(part)).to(entries) for name, part in editor.tensors.items()}
    directions = token_directions(subject, [token for _, token in held.values()], entries.shape[1])
    return Edit(editor.site, Scoped(parts, entries, additions(parts, directions.to(entries)), least))


@dataclass(frozen=True, eq=False)
class Scoped:
    """The function of such an edit: entries and what each adds, [entries, dimension] both."""

    parts: Mapping[str, torch.Tensor]
    entries: torch.Tensor
    added: torch.Tensor
    least: float

    @property
    def __name__(self) -> str:
        return f"scoped memory of {len(self.entries)} entries"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        """Add what is remembered where a state is in scope: [positions, dimension] to the same."""
        belief = torch.exp(-distances(self.parts, self.entries, value.detach().to(self.entries)))
        best = belief.max(1)
        changed = value + self.added.to(value)[best.indices.to(value.device)]
        return torch.where((best.values > self.least).to(value.device)[:, None], changed, value)
