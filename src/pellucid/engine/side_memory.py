"""A side memory: a second feed-forward matrix that takes over where it would say something markedly different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.results import Learned
from pellucid.engine.editor_check import need_editor
from pellucid.models.edits import Context, Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

APPLY = "side_memory"


def activation_difference(keys: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return |(W' - W) k| of keys [positions, neuron] for a change W' - W [dimension, neuron]: [positions]."""
    return (keys @ change.T).norm(dim=-1)


def routing_loss(inside: torch.Tensor, outside: torch.Tensor, least: float, most: float, apart: float) -> torch.Tensor:
    """Return what the differences [positions] of facts and of other text lack in margin (Wang et al. 2024).

    mean max(0, least - inside) + mean max(0, outside - most) + mean over pairs max(0, apart - (inside - outside)).
    """
    gaps = inside[:, None] - outside[None]
    return (least - inside).relu().mean() + (outside - most).relu().mean() + (apart - gaps).relu().mean()


def merged(changes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return one change out of several: per entry the mean of those that share the sign of the sum (TIES).

    Entries that are 0 do not count. Without the trimming of Yadav et al. 2023 (arXiv:2306.01708).
    """
    every = torch.stack(list(changes))
    agree = (every.sign() == every.sum(0).sign()) & (every != 0)
    return torch.where(agree, every, 0).sum(0) / agree.sum(0).clamp(min=1)


def side_edits(subject: Subject, memory: Learned) -> tuple[Edit, Edit]:
    """Return the edits that put a side memory to use: `subject.with_(*side_edits(subject, memory))`.

    At every position with key k the feed-forward layer says W' k instead of W k where |(W' - W) k| reaches the
    memory's threshold, and stays, bit for bit, elsewhere.

    Raises:
        EditError: something else than a side memory, or one of other weights.
    """
    need_editor(subject, memory, APPLY, "wise")
    keys = Keys()
    change, threshold = (torch.as_tensor(np.asarray(memory.tensors[name])) for name in ("change", "threshold"))
    return Edit(str(memory.settings["key"]), keys), Edit(memory.site, Routed(keys, change, float(threshold)))


@dataclass(frozen=True, eq=False)
class Keys:
    """An edit that changes nothing, but keeps the keys of each row for the output that follows in the same run."""

    held: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        return "side memory: keys"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        """Keep the keys [positions, neuron] and return them as they are."""
        self.held[context.row] = value
        return value


@dataclass(frozen=True, eq=False)
class Routed:
    """The function of the edit of the output: the change of the matrix [dimension, neuron] and the threshold."""

    keys: Keys
    change: torch.Tensor
    threshold: float

    @property
    def __name__(self) -> str:
        return f"side memory from {self.threshold:.3g} on"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        """Return what the routed matrix says: [positions, dimension] to the same."""
        wide = torch.promote_types(value.dtype, torch.float32)
        keys, change = self.keys.held.pop(context.row).to(wide), self.change.to(value.device, wide)
        routed = activation_difference(keys, change) >= self.threshold
        return torch.where(routed[:, None], (value.to(wide) + keys @ change.T).to(value.dtype), value)
