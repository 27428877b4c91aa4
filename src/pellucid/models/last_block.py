"""The last block past its attention, at the places alone that are read: no other place reaches a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.models.layout import block_sites, depth, main_stack, place

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
    stack, last = main_stack(layout), depth(subject.model, layout) - 1
    have = {parse_site(name).part for name in block_sites(subject.model, layout, stack, last)}
    raw = "mlp.out_raw" in have  # then a norm stands between it and mlp.out
    parts = [part for part in WORK if part in have and not (raw and part == "mlp.out")]
    found = dict.fromkeys(place(subject.model, layout, Site(stack, last, part)).module for part in parts)
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
