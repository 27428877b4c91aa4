"""Small networks that give each unit of a prompt a mask, from its embeddings and last hidden states."""

from __future__ import annotations

import torch
from torch.nn.functional import layer_norm

from pellucid.engine.gradients import site_values
from pellucid.engine.question import Question
from pellucid.engine.variants import token_site
from pellucid.models.layout import depth

HIDDEN = 64
STEEPEST = 4.0


class MaskNetworks:
    """Networks c(e, h) side by side, and the prompt they are asked about; all in float32 on the CPU."""

    def __init__(self, question: Question, networks: int, seed: int) -> None:
        self.question, self.random = question, torch.Generator().manual_seed(seed)
        embeddings = question.embeddings()
        self.kind, self.end = embeddings, embeddings.float().cpu()
        prefix = token_site(question.subject).removesuffix("embed.token")
        blocks = depth(question.subject.model, question.subject.need_layout(), prefix.removesuffix("."))
        site = f"{prefix}blocks.{blocks - 1}.resid_post"
        last = site_values(question.subject, question.tokens, question.readout, site).float().cpu()
        self.last = layer_norm(last, last.shape[-1:])
        width = self.end.shape[1] + self.last.shape[1]
        first = torch.randn(networks, width, HIDDEN, generator=self.random) / width**0.5
        second = torch.randn(networks, HIDDEN, 1, generator=self.random) / HIDDEN
        shifts = torch.zeros(networks, 1, HIDDEN), torch.zeros(networks, 1, 1)
        self.weights = [t.requires_grad_() for t in (first, shifts[0], second, shifts[1])]
        self.inside = torch.zeros(len(question.units), len(self.end))
        for row, (start, stop) in enumerate(question.units.spans):
            self.inside[row, start:stop] = 1.0

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the logit of each unit's mask, the mean over its tokens: [networks, units]."""
        first, shift, second, level = self.weights
        embeddings = embeddings.expand(len(first), *self.end.shape)
        seen = torch.cat([layer_norm(embeddings, embeddings.shape[-1:]), self.last.expand(len(first), -1, -1)], dim=2)
        by_token = (torch.relu(seen @ first + shift) @ second + level)[..., 0]
        # Bounded, because a mask that has reached 0 or 1 has no gradient and stays there.
        return STEEPEST * torch.tanh(by_token @ self.inside.T / self.inside.sum(1) / STEEPEST)

    def spread(self, of_units: torch.Tensor) -> torch.Tensor:
        """Return numbers of units at their tokens, 0 elsewhere: [networks, positions, 1]."""
        return (of_units @ self.inside)[..., None]

    def mixed(self, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the prompt with noise where the mask is 0, and where it is 1: [networks, 2, positions, dimension]."""
        return torch.stack([self.end + self.spread(gone) * (noise - self.end) for gone in (1 - mask, mask)], dim=1)

    def noise(self) -> torch.Tensor:
        """Return the embeddings of random tokens: [networks, positions, dimension]."""
        subject = self.question.subject
        ids = torch.randint(subject.vocabulary, (len(self.weights[0]), len(self.end)), generator=self.random)
        with torch.no_grad():
            found: torch.Tensor = subject.model.get_input_embeddings()(ids.to(subject.input_device))
        return found.float().cpu()

    def replaced(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the prompt with noise in all of its units: [networks, positions, dimension]."""
        return self.end + self.spread(torch.ones(1, len(self.inside))) * (noise - self.end)

    def read(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return targets [..., targets] and gradients [..., targets, positions, dimension] at [..., positions, dim]."""
        values, gradients = self.question.gradient(points.reshape(-1, *points.shape[-2:]).to(self.kind))
        shape = points.shape[:-2]
        return (
            values.float().cpu().reshape(*shape, -1),
            gradients.float().cpu().reshape(*shape, *gradients.shape[1:]),
        )
