"""The last block past its attention, at the places alone that are read: no other place reaches a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site
from pellucid.models.layout import depth, main_stack, place

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

WORK = ("attn.z", "mlp.gate", "mlp.up", "mlp.out_raw", "mlp.out")  # sites on modules that go position by position


def at_places(
    subject: Subject, places: torch.Tensor, rows: torch.Tensor | None = None
) -> dict[torch.nn.Module, Callable[..., Any]]:
    """Return what the modules behind the last attention do at some places, with zeros elsewhere.

    For models of one stack whose blocks are modules of their own; whether it holds for a model is to be proved on it.

    Args:
        subject: the model.
        places: positions [rows, n] of each row, or [n] of the rows given.
        rows: the row of each place; [n].
    """
    if rows is None:
        rows, places = torch.arange(len(places)).repeat_interleave(places.shape[1]), places.flatten()
    layout = subject.need_layout()
    taps, last = layout.stacks[main_stack(layout)].taps, depth(subject.model, layout) - 1
    raw = "mlp.out_raw" in taps  # then a norm stands between it and mlp.out
    sites = [name for name in WORK if name in taps and not (raw and name == "mlp.out")]
    found = dict.fromkeys(place(subject.model, layout, Site(main_stack(layout), last, name)).module for name in sites)
    inner = {part for module in found for part in module.modules() if part is not module}
    return {module: _work_at(module.forward, rows, places) for module in found if module not in inner}


def _work_at(own: Callable[..., Any], rows: torch.Tensor, places: torch.Tensor) -> Callable[..., Any]:
    """Return a module's work on [rows, positions, dimension] at some places, with zeros elsewhere."""

    def work(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or args[0].ndim != 3:
            return own(*args, **kwargs)
        inside = rows < len(args[0])  # rows that enter past the last block are read as they are
        where = (rows[inside].to(args[0].device), places[inside].to(args[0].device))
        found = own(args[0][where][None])
        if not isinstance(found, torch.Tensor):
            return own(*args)
        out = found.new_zeros(*args[0].shape[:2], found.shape[-1])
        out[where] = found[0]
        return out

    return work
