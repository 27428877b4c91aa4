"""The residual stream over a corpus, kept in memory: what lenses are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.tokens import Tokens
from pellucid.engine.lens import last_site, stream_sites
from pellucid.engine.planning import in_batches
from pellucid.engine.variants import row, whole
from pellucid.models.forward import Row, forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Streams:
    """The stream of one prompt at a site, `layers` [layer, position, dimension], and behind the last block, `end`.

    `real` marks the positions of the prompt's own tokens, special ones left out.
    """

    tokens: Tokens
    layers: torch.Tensor
    end: torch.Tensor
    real: torch.Tensor


@torch.no_grad()
def stored_streams(subject: Subject, prompts: Sequence[Any], site: str, method: str) -> list[Streams]:
    """Return the streams of every prompt at a site of every block, in float32 (float64 models: float64) on the CPU.

    Costs one forward pass per prompt.

    Args:
        subject: a language model; its edits are active.
        prompts: texts, chats or token ids.
        site: "resid_pre", "resid_mid" or "resid_post".
        method: who asks, for the message.

    Raises:
        CapabilityError: a model that is no language model of one stack.
        InputError: no prompts, or a text in place of a list of texts.
        SiteError: a site that the model lacks.
    """
    if subject.head not in ("causal-lm", "masked-lm") or subject.kind == "encoder-decoder":
        raise CapabilityError(
            f"{method} learns from the positions of texts, so it needs a language model of one stack, but "
            f"{subject.name} is a {subject.kind} with head {subject.head}; load a decoder or a masked language model."
        )
    if isinstance(prompts, str) or len(prompts) == 0:
        raise InputError(
            f"{method} learns from a list of prompts, but got {prompts if isinstance(prompts, str) else 'none'!r}; "
            "give texts or lists of token ids."
        )
    tokens = [subject.encode(prompt) for prompt in prompts]
    names, last = stream_sites(subject, site), last_site(subject)
    wide = torch.float64 if subject.dtype == "float64" else torch.float32
    rows = [row(subject, one, whole(one)) for one in tokens]

    def run(batch: list[Row]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        first = torch.zeros((len(batch), 1), dtype=torch.long)  # no logits are needed: those of one position
        output = forward(subject, batch, capture=list(dict.fromkeys([*names, last])), wanted=first)
        return [
            (torch.stack([output.row(n, i) for n in names]).to("cpu", wide), output.row(last, i).to("cpu", wide))
            for i in range(len(batch))
        ]

    found = in_batches(rows, [len(one) for one in tokens], run)
    return [
        Streams(one, layers, end, ~torch.tensor(one.special)) for one, (layers, end) in zip(tokens, found, strict=True)
    ]


def held_out(streams: Sequence[Streams], share: float, rng: np.random.Generator) -> tuple[list[Streams], list[Streams]]:
    """Split prompts at random into those that are learned from and those that only test (none of a single prompt)."""
    order = rng.permutation(len(streams))
    tested = min(len(streams) - 1, max(1, round(share * len(streams)))) if share > 0 else 0
    return [streams[i] for i in order[tested:]], [streams[i] for i in order[:tested]]
