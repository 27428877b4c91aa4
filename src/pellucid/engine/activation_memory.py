"""A memory of activations beside a model: values that take over where an activation lies near a key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pellucid.core.errors import EditError
from pellucid.core.results import Learned
from pellucid.models.edits import Context, Edit

APPLY = "activation_memory"


def memory_edit(memory: Learned) -> Edit:
    """Return the edit that puts a memory to use: `subject.with_(memory_edit(memory))`.

    At every position the activation h becomes the value of the nearest key where |h - key| is below that key's radius,
    and stays, bit for bit, elsewhere.

    Raises:
        EditError: something else than a memory.
    """
    if memory.apply != APPLY:
        raise EditError(f"A memory was asked for, but this is applied by {memory.apply!r}; give what grace returned.")
    parts = (memory.tensors[name] for name in ("keys", "values", "radii"))
    return Edit(memory.site, Lookup(*(torch.as_tensor(np.asarray(part)) for part in parts)))


@dataclass(frozen=True, eq=False)
class Lookup:
    """The function of such an edit: keys and values [entries, dimension], radii [entries]."""

    keys: torch.Tensor
    values: torch.Tensor
    radii: torch.Tensor

    @property
    def __name__(self) -> str:
        return f"memory of {len(self.keys)} entries"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        """Replace what lies within a radius: [positions, dimension] to the same."""
        if not len(self.keys):
            return value
        wide = torch.promote_types(value.dtype, torch.float32)
        distances = (value.detach().to(wide)[:, None] - self.keys.to(value.device, wide)[None]).norm(dim=-1)
        nearest = distances.argmin(1)
        inside = distances.gather(1, nearest[:, None])[:, 0] < self.radii.to(distances)[nearest]
        return torch.where(inside[:, None], self.values.to(value)[nearest], value)
