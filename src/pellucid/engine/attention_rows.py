"""The row of attention that the output is read from, in the layers asked for: read, replaced, and scored again.

The row belongs to the position that is read: the last one of a decoder, the mask or the first one of an encoder, and
the decoder's first one over the prompt (cross attention) in an encoder-decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.engine.capture import capture
from pellucid.engine.cone import score_edits
from pellucid.engine.patterns import chosen_layers, pattern_sites
from pellucid.engine.question import Question, read_position
from pellucid.engine.readout import Readout
from pellucid.engine.targets import one_token
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class AttentionRows:
    """The rows [head, key] of some layers, float64 on the CPU; `seen[i]` are the keys that row i may attend to."""

    sites: tuple[str, ...]
    query: int
    rows: tuple[torch.Tensor, ...]
    seen: tuple[np.ndarray, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers' numbers, as labels."""
        return tuple(site.split(".")[-3] for site in self.sites)


def attention_rows(question: Question, layers: Sequence[int] | None = None) -> AttentionRows:
    """Return the rows of attention of the position that is read, in the layers asked for (None: all).

    Attention weights are computed in these layers only. A key counts as seen where any head gives it weight.

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a target of several tokens, which is read from several rows.
    """
    subject = question.subject
    one_token(question.readout)
    if subject.kind == "encoder-decoder":
        numbers = chosen_layers(subject, layers, "decoder")
        sites, query = [str(Site("decoder", layer, "cross_attn.pattern")) for layer in numbers], 0
    else:
        sites, query = pattern_sites(subject, layers), read_position(question)
    captured = capture(subject, question.tokens, sites)
    rows = tuple(captured[site][:, query].double().cpu() for site in sites)
    return AttentionRows(tuple(sites), query, rows, tuple(np.flatnonzero((row > 0).any(0).numpy()) for row in rows))


def score_rows(
    question: Question, readout: Readout, found: AttentionRows, replaced: Sequence[tuple[int, torch.Tensor]]
) -> np.ndarray:
    """Score the prompt with one row of attention replaced at a time: [replacements, readout.size], float64.

    Args:
        question: what is asked.
        readout: what is read, one token.
        found: the rows from `attention_rows`.
        replaced: for each replacement the index into `found.sites` and the new row [head, key].

    Exact. In a decoder the row times the values is put in behind the attention (its output before the projection), so
    that only the position that is read, in the layers above, is computed again; elsewhere the pattern itself is edited.
    """
    subject = question.subject
    values = _values(question, [found.sites[i] for i in sorted({i for i, _ in replaced})])
    edits: list[tuple[Edit, ...]] = []
    for index, row in replaced:
        site = found.sites[index]
        if site in values:
            mixed = torch.einsum("hk,khd->hd", row, values[site])
            edits.append((Edit(site.replace("pattern", "z"), "set", mixed[None], {"position": found.query}),))
        else:
            edits.append((Edit(site, "set", row[:, None], {"query": found.query}),))
    return score_edits(subject, question.tokens, readout, edits)


def _values(question: Question, sites: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the values [key, head, dimension] of each pattern; none where the pattern itself must be edited."""
    subject: Subject = question.subject
    layout = subject.need_layout()
    # Edits of the subject may follow the pattern, and at a site the given order counts.
    if subject.kind != "decoder" or subject.edits or not {"attn.v", "attn.z"} <= set(layout.stacks[""].taps):
        return {}
    captured = capture(subject, question.tokens, [site.replace("pattern", "v") for site in sites])
    heads = layout.stacks[""].heads
    repeat = heads.query // heads.key_value
    return {
        site: value.double().cpu().repeat_interleave(repeat, 1)
        for site, value in zip(sites, captured.values(), strict=True)
    }
