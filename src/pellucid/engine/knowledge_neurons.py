"""Which feed-forward neurons hold an answer: integrated gradients of its probability along their activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pellucid.engine.backward import frozen
from pellucid.engine.capture import expand
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def neuron_attributions(subject: Subject, prompt: tuple[int, ...], token: int, steps: int = 8) -> list[torch.Tensor]:
    """Return for each layer the attribution [neuron] of a token's probability to its neurons at the last position.

    w_i / m * sum_k dP / dw_i at (k / m) w, the layer's neurons moved from zero to their value together and one layer at
    a time (Dai et al. 2022, arXiv:2104.08696): a Riemann sum, so a layer's attributions sum to the rise of P only
    approximately.
    """
    names = expand(subject, "blocks.*.mlp.post")
    last = len(prompt) - 1
    with torch.no_grad():
        output = forward(subject, [Row(prompt)], capture=names)
    values = [output.row(name, 0)[last].detach() for name in names]

    def run(layers: list[int]) -> list[torch.Tensor]:
        points = [[(k / steps * values[i]).requires_grad_() for k in range(1, steps + 1)] for i in layers]
        rows = [
            Row(prompt, edits=(Edit(names[i], "set", point, {"position": last}),))
            for i, own in zip(layers, points, strict=True)
            for point in own
        ]
        with subject.lock, frozen(subject.model), torch.enable_grad():
            logits = forward(subject, rows, grad=True, wanted=torch.full((len(rows), 1), last)).logits[:, 0]
            wide = logits if logits.dtype == torch.float64 else logits.float()
            gradients = torch.autograd.grad(wide.softmax(-1)[:, token].sum(), [p for own in points for p in own])
        subject.count(backwards=len(rows))
        mean = torch.stack(gradients).unflatten(0, (len(layers), steps)).double().mean(1)
        return [mean[n] * values[i].double() for n, i in enumerate(layers)]

    return in_batches(range(len(names)), [len(prompt) * steps] * len(names), run)


def strongest_neurons(attributions: list[torch.Tensor], count: int) -> list[tuple[int, int]]:
    """Return the (layer, neuron) pairs of the `count` largest attributions, the largest first."""
    every = [(float(v), layer, i) for layer, own in enumerate(attributions) for i, v in enumerate(own.tolist())]
    return [(layer, i) for _, layer, i in sorted(every, key=lambda one: -one[0])[:count]]
