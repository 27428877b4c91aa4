"""Edits of an encoder: every position sees every other, so only the blocks below an edit are saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.tokens import Tokens
from pellucid.engine.cone_rows import blocks_of, put_in
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit
from pellucid.models.hooks import Hook, bypassed, hooked, parts_of
from pellucid.models.taps import first_input

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@torch.no_grad()
def score_from_layers(
    subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[tuple[Edit, ...]]
) -> np.ndarray:
    """Return the scores of the prompt under each set of edits: [sets, readout.size], float64.

    Exact: the blocks below a set's first layer hand on what they gave without edits.
    """
    found = np.zeros((len(edits), readout.size))
    first = [_first_layer(subject, one) for one in edits]
    streams: dict[int, torch.Tensor] = {}
    kinds: list[int] = []
    if any(first):
        plain = _keep_streams(subject, tokens, readout, streams, kinds)
        if not _starts_anywhere(subject, tokens, readout, streams, kinds, plain):
            first = [0] * len(edits)
    for layer in sorted(set(first)):
        here = [i for i, start in enumerate(first) if start == layer]

        def run(batch: list[tuple[Edit, ...]], layer: int = layer) -> list[np.ndarray]:
            with subject.lock, _from_layer(subject, layer, streams, kinds, len(batch)):
                values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=batch)
            return list(values.double().cpu().numpy())

        found[here] = np.stack(in_batches([edits[i] for i in here], [len(tokens)] * len(here), run))
    return found


@contextmanager
def _from_layer(
    subject: Subject, layer: int, streams: dict[int, torch.Tensor], kinds: list[int], rows: int
) -> Iterator[None]:
    if not layer:
        yield
        return
    blocks = blocks_of(subject)
    entry = Hook(blocks[layer], "input", put_in(streams[layer].expand(rows, -1, -1)))
    with bypassed(blocks[:layer], kinds[0]), hooked([entry]):
        yield


def _first_layer(subject: Subject, edits: tuple[Edit, ...]) -> int:
    """Return the lowest block that a set of edits touches; 0 where an edit lies outside the blocks."""
    layout = subject.need_layout()
    sites = [parse_site(edit.site) for edit in edits]
    if "" not in layout.stacks or layout.stacks[""].shared or any(s.layer is None or s.stack for s in sites):
        return 0
    return min((int(site.layer or 0) for site in sites), default=0)


def _starts_anywhere(
    subject: Subject, tokens: Tokens, readout: Readout, streams: dict[int, torch.Tensor], kinds: list[int],
    plain: torch.Tensor,
) -> bool:  # fmt: skip
    """Return whether this model gives the same from its last block alone: T5's first block makes biases for all."""
    key = ("starts anywhere", type(subject.model), subject.dtype)
    if key not in subject.state.cache:
        last = len(streams) - 1
        with subject.lock, subject.uncounted(), _from_layer(subject, last, streams, kinds, 1):
            found, _ = read(subject, tokens, readout, [whole(tokens)])
        eps = torch.finfo(getattr(torch, subject.dtype)).eps
        close = (found - plain).abs().max() <= 2000 * max(eps, 1e-9) * max(1.0, float(plain.abs().max()))
        subject.state.cache[key] = bool(close)
    return bool(subject.state.cache[key])


def _keep_streams(
    subject: Subject, tokens: Tokens, readout: Readout, streams: dict[int, torch.Tensor], kinds: list[int]
) -> torch.Tensor:
    """Keep what every block is given in an unedited run, and return its scores."""

    def before(layer: int) -> Any:
        def keep(args: Any, kwargs: Any) -> Any:
            streams[layer] = first_input(args, kwargs)[0].clone()
            return args, kwargs

        return keep

    def after(output: Any) -> Any:
        kinds.append(parts_of(output))
        return output

    blocks = blocks_of(subject)
    hooks = [Hook(block, "input", before(layer)) for layer, block in enumerate(blocks)]
    with subject.lock, hooked([*hooks, Hook(blocks[0], "output", after)]):
        return read(subject, tokens, readout, [whole(tokens)])[0]
