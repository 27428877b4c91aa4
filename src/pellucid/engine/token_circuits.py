"""What the output-value circuits of heads make of single tokens: which logits a head raises when it attends to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.engine.capture import capture
from pellucid.engine.head_weights import head_weights, unembedding
from pellucid.engine.role_inputs import beginning
from pellucid.engine.token_losses import Text
from pellucid.engine.transformed import attention_blocks

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

TOP = 5


class TokenCircuits:
    """What the OV circuit of every head makes of tokens, as they stand behind the first block (layer 0: embedded)."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.outputs = subject, unembedding(subject)
        self.ov = [head_weights(subject, layer) for layer in range(subject.layers)]
        self.streams: dict[int, list[torch.Tensor]] = {}

    def hits(self, ids: Sequence[int], wanted: Sequence[int], among: Sequence[int] = ()) -> np.ndarray:
        """Return for what share of the tokens the logit raised most, among `among`, is the wanted one: [layer, head].

        Logits that are all alike raise nothing.
        """
        choices = list(dict.fromkeys(among or wanted))
        aim = torch.tensor([choices.index(i) for i in wanted])
        found = []
        for layer, weights in enumerate(self.ov):
            streams = torch.stack([self._stream(i)[min(layer, 1)] for i in ids]).to(weights.value)
            moved = torch.einsum("nd,hdw,hwe->hne", streams, weights.value, weights.output)
            logits = (moved @ self.outputs[choices].to(moved).T).cpu()
            raised = (logits.argmax(-1) == aim) & (logits.amax(-1) > logits.amin(-1))
            found.append(raised.double().mean(-1).numpy())
        return np.stack(found)

    def moved(self, text: Text) -> np.ndarray:
        """Return the last token's attention on places whose value raises the answer most: [layer, head].

        That is, where the answer is among the `TOP` highest logits of what the head takes from there.
        """
        answer, before = text.ids[text.scored[0]], text.ids[: text.scored[0]]
        found = []
        for block in attention_blocks(self.subject, self.subject.encode(list(before))):
            logits = block.values.transpose(0, 1) @ self.outputs.to(block.values).T
            above = (logits > logits[..., [answer]]).sum(-1)
            found.append((block.pattern[:, -1] * (above < TOP)).sum(-1).double().cpu().numpy())
        return np.stack(found)

    def _stream(self, token: int) -> list[torch.Tensor]:
        """Return what a token alone brings to the first block, and to the second."""
        if token not in self.streams:
            sites = [f"blocks.{layer}.resid_pre" for layer in range(min(2, self.subject.layers))]
            ids = [*beginning(self.subject), token]
            found = capture(self.subject, ids, sites)
            self.streams[token] = [found[site][-1] for site in sites]
        return self.streams[token]
