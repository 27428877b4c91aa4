"""What each part of a model writes when only what a hypothesis names is kept: causal scrubbing's recursion."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.tokens import Tokens
from pellucid.engine.paths import Runs, Sender, fed_forward, mixed, receiver_of

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class Scrub:
    """The recursion: what each part writes when only what the hypothesis names is kept."""

    def __init__(
        self, subject: Subject, encoded: list[Tokens], hypothesis: Mapping[str, Sequence[str]],
        features: Mapping[str, Sequence[Any]], rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.subject, self.hypothesis, self.features, self.rng = subject, hypothesis, features, rng
        self.runs = [Runs(subject, tokens, tokens) for tokens in encoded]
        self.tokens, self.end = encoded[0], f"blocks.{subject.layers - 1}.resid_post"

    def written(self, part: str, references: np.ndarray) -> list[torch.Tensor]:
        """Return what a part writes for each reference prompt: [position, dimension] each."""
        chosen = self._agreeing(part, references)
        sender = sender_of(self.subject, part)
        inputs = [f"{part}.{one}" for one in "qkv" if f"{part}.{one}" in self.hypothesis]
        if part not in self.hypothesis and not inputs:
            return [self.runs[i].written(sender) for i in chosen]
        if sender.head < 0:
            streams = self.stream(part, chosen)
            before = [self.runs[i].good[f"blocks.{sender.layer}.resid_pre"] for i in chosen]
            scale = self.runs[0].scale
            made = fed_forward(self.subject, self.tokens, sender.layer, streams, before)
            return [scale * value for value in made]
        if inputs:
            given = {one: self.stream(f"{part}.{one}", chosen) for one in "qkv"}
        else:
            given = dict.fromkeys("qkv", self.stream(part, chosen))
        mixes = mixed(self.subject, self.tokens, sender.layer, sender.head, given)
        return [self.runs[0].projected(sender, mix) for mix in mixes]

    def stream(self, part: str, references: np.ndarray) -> list[torch.Tensor]:
        """Return the stream that a part reads: that of a random prompt, with the named parts exchanged."""
        site = self.end if part == "logits" else self.runs[0].stream(receiver_of(self.subject, part))
        others = self.rng.integers(len(self.runs), size=len(references))
        streams = [self.runs[i].good[site] for i in others]
        for source in self.hypothesis.get(part, ()):
            sender = sender_of(self.subject, source)
            kept = self.written(source, references)
            streams = [
                stream + new - self.runs[i].written(sender)
                for stream, new, i in zip(streams, kept, others, strict=True)
            ]
        return streams

    def _agreeing(self, part: str, references: np.ndarray) -> np.ndarray:
        """Return for each reference a random prompt with the same feature of the part."""
        if part not in self.features:
            return references
        groups: dict[Hashable, list[int]] = {}
        for i, label in enumerate(self.features[part]):
            groups.setdefault(label, []).append(i)
        return np.array([self.rng.choice(groups[self.features[part][i]]) for i in references])


def sender_of(subject: Subject, part: str) -> Sender:
    """Return what writes a part: the embedding, a head or a feed-forward layer."""
    if part == "embed":
        return Sender(-1, -1)
    found = receiver_of(subject, part)
    return Sender(found.layer, found.head)
