"""What a receiver makes of the streams that reach it, and the edits that let it alone see them."""

from __future__ import annotations

import torch

from pellucid.core.axes import Site
from pellucid.engine.paths import Receiver, Runs, received
from pellucid.models.edits import Edit


def receiver_values(runs: Runs, end: Receiver, streams: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return what the receiver makes of the streams that reach it, or these where it can be left to read them."""
    return streams if end.layer == runs.depth or _reads_alone(runs, end) else received(runs, end, streams)


def _reads_alone(runs: Runs, end: Receiver) -> bool:
    """Return whether the receiver is all that reads its stream in its block: a feed-forward layer behind attention."""
    return end.head < 0 and not runs.parallel


def seen_by(runs: Runs, end: Receiver, value: torch.Tensor, start: int) -> tuple[Edit, ...]:
    """Return the edits that let the receiver, and nothing else, see what reaches it."""
    here = {"position": list(range(start, len(value)))}
    if end.layer == runs.depth:
        return (Edit(str(Site("", end.layer - 1, "resid_post")), "set", value[start:], here),)
    if _reads_alone(runs, end):  # behind the layer, the change is taken from the stream again
        change = value[start:] - runs.corrupt[runs.stream(end)][start:]
        back = Edit(str(Site("", end.layer, "resid_post")), "add", -change, here)
        return Edit(runs.stream(end), "set", value[start:], here), back
    if end.head < 0:
        return (Edit(str(Site("", end.layer, "mlp.out")), "set", value[start:], here),)
    return (Edit(str(Site("", end.layer, "attn.z")), "set", value[start:, None], here | {"head": end.head}),)
