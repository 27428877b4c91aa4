"""A network that reads a request to edit and gates the gradient of its answer: KnowledgeEditor's, and how it is used.

De Cao et al. 2021 (arXiv:2104.08164).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pellucid.core.facts import Fact, as_facts
from pellucid.core.results import Learned, WeightEdit
from pellucid.engine.continuations import following_ids, spoken
from pellucid.engine.down_projection import DownProjection, down_projections, weight_edit
from pellucid.engine.edit_factors import Factors, edit_factors, rows_of
from pellucid.engine.editor_check import need_editor

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

APPLY = "hyper_editor"
PARTS = 3


class Request(NamedTuple):
    """What the network reads: the ids of a prompt, of the answer so far and of the new one."""

    prompt: tuple[int, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]


class Gate(NamedTuple):
    """What the network says of one matrix: alpha, beta [neuron], gamma, delta [dimension], and eta."""

    alpha: torch.Tensor
    beta: torch.Tensor
    gamma: torch.Tensor
    delta: torch.Tensor
    eta: torch.Tensor


class HyperNetwork(torch.nn.Module):
    """A bidirectional LSTM over the model's own embeddings of prompt, old and new answer, and a layer per matrix.

    It begins with even gates, so that a change is a step along the gradient of `first` times the matrix's norm.
    """

    def __init__(self, width: int, shapes: Sequence[tuple[int, int]], hidden: int, first: float) -> None:
        """Make the network for embeddings of a width and matrices of the shapes (dimension, neuron)."""
        super().__init__()
        self.shapes = tuple(shapes)
        self.parts = torch.nn.Parameter(0.1 * torch.randn(PARTS, width))
        self.reader = torch.nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.inner = torch.nn.Linear(2 * hidden, hidden)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(hidden, 2 * sum(shape) + 1) for shape in shapes)
        for head, (size, neurons) in zip(self.heads, shapes, strict=True):
            start = torch.cat([torch.zeros(2 * neurons), torch.ones(size), torch.zeros(size), torch.ones(1)])
            start[-1] = float(np.log(first / (1 - first)))
            head.weight.data.zero_()
            head.bias.data.copy_(start)

    def forward(self, embedded: torch.Tensor, parts: torch.Tensor) -> list[Gate]:
        """Return the gates that a request asks for, from its embeddings [positions, width] and their parts."""
        _, (last, _) = self.reader((embedded + self.parts[parts])[None])
        inner = torch.tanh(self.inner(last[:, 0].flatten()))
        return [
            Gate(*head(inner).split([neurons, neurons, size, size, 1]))
            for head, (size, neurons) in zip(self.heads, self.shapes, strict=True)
        ]


def gated_change(gate: Gate, gradient: torch.Tensor, norm: float) -> torch.Tensor:
    """Return -sigmoid(eta) |W| ((gamma (n softmax(alpha))') * G / |G| + delta softmax(beta)'): [dimension, neuron].

    n is the number of neurons, so that an even alpha leaves the gradient G as it is. The paper takes G as it comes, has
    no n, and leaves the sign to gamma and delta.

    Args:
        gate: of this matrix.
        gradient: G, [dimension, neuron].
        norm: |W|, Frobenius.
    """
    gated = torch.outer(gate.gamma, gate.alpha.softmax(0) * len(gate.alpha)) * (
        gradient / gradient.norm().clamp(min=1e-30)
    )
    return -gate.eta.sigmoid() * norm * (gated + torch.outer(gate.delta, gate.beta.softmax(0)))


def requests(subject: Subject, facts: Sequence[Fact]) -> list[Request]:
    """Return facts as the network reads them; where one names no true answer, what the model says takes its place."""
    pairs = [following_ids(subject, fact.text, fact.target) for fact in facts]
    lacking = [i for i, fact in enumerate(facts) if not fact.true]
    longest = max((len(pairs[i][1]) for i in lacking), default=0)
    said = dict(zip(lacking, spoken(subject, [pairs[i][0] for i in lacking], longest), strict=True)) if lacking else {}
    return [
        Request(prompt, said[i] if i in said else following_ids(subject, fact.text, fact.true)[1], new)
        for i, (fact, (prompt, new)) in enumerate(zip(facts, pairs, strict=True))
    ]


def changes(
    subject: Subject, network: HyperNetwork, request: Request, factors: Sequence[Factors],
    matrices: Sequence[DownProjection],
) -> list[torch.Tensor]:  # fmt: skip
    """Return per matrix the change [dimension, neuron] that the network makes of a gradient; differentiable in it."""
    ids = torch.tensor([token for part in request for token in part], device=subject.input_device)
    parts = torch.tensor([number for number, part in enumerate(request) for _ in part], device=ids.device)
    with torch.no_grad():
        embedded = subject.model.get_input_embeddings()(ids).float()
        embedded = embedded / embedded.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-30)
    return [
        gated_change(gate, (own.gradients.T @ own.keys).float(), float(matrix.weight.detach().float().norm()))
        for gate, own, matrix in zip(network(embedded, parts), factors, matrices, strict=True)
    ]


def new_network(
    subject: Subject, matrices: Sequence[DownProjection], hidden: int, first: float, seed: int
) -> HyperNetwork:
    """Return an untrained network; the global generator of random numbers is left as it was."""
    width = int(subject.model.get_input_embeddings().weight.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = HyperNetwork(width, [(len(matrix.matrix), matrix.neurons) for matrix in matrices], hidden, first)
    return found.to(subject.input_device)


def learned(network: HyperNetwork, matrices: Sequence[DownProjection], title: str, apply: str) -> Learned:
    """Return a trained network as a result; `network_of` takes it up again."""
    tensors = {name: part.detach().cpu().numpy() for name, part in network.state_dict().items()}
    settings = {"layers": [matrix.layer for matrix in matrices], "hidden": network.inner.out_features}
    return Learned(title, tensors=tensors, apply=apply, site="mlp.out", settings=settings)


def network_of(subject: Subject, editor: Learned) -> tuple[HyperNetwork, list[DownProjection]]:
    """Return the network of a learned editor, and the matrices that it changes."""
    matrices = down_projections(subject, [int(layer) for layer in editor.settings["layers"]])
    network = new_network(subject, matrices, int(editor.settings["hidden"]), 0.5, 0)
    network.load_state_dict({name: torch.as_tensor(np.asarray(part)) for name, part in editor.tensors.items()})
    return network, matrices


@torch.no_grad()
def hyper_write(subject: Subject, editor: Learned, facts: Any) -> WeightEdit:
    """Return the weight edit that a trained editor makes of facts; the changes of several facts are added.

    Args:
        subject: the model that the editor was trained for.
        editor: what knowledge_editor returned.
        facts: `Fact(prompt, subject, target)` or a list of them.

    Raises:
        EditError: something else than such an editor, or one of other weights.
    """
    need_editor(subject, editor, APPLY, "knowledge_editor")
    network, matrices = network_of(subject, editor)
    asked = as_facts(facts)
    factors = edit_factors(subject, rows_of(subject, asked), matrices)
    total = [torch.zeros(matrix.matrix.shape, device=subject.input_device) for matrix in matrices]
    for request, own in zip(requests(subject, asked), factors, strict=True):
        found = changes(subject, network, request, own, matrices)
        total = [before + change for before, change in zip(total, found, strict=True)]
    return weight_edit(subject, matrices, total, f"KnowledgeEditor: {len(asked)} facts")
