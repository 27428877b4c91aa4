"""Aligned value vectors: the neurons that write along a direction (such as toxicity), and whether they still fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Array, Positive
from pellucid.core.results import Evidence, Learned, Table
from pellucid.engine.capture import capture
from pellucid.engine.head_weights import neuron_weights, unembedding
from pellucid.engine.lens import output_name
from pellucid.models.subject import Subject


@method(
    rows=("STR-7",),
    paper="arXiv:2401.01967",
    takes="models",
    produces="table",
    needs=("weights", "activations"),
    cost="prompts*F",
)
def aligned_value_vectors(
    subject: Subject, direction: Learned | Array, *, prompts: Sequence[Any] = (), tuned: Subject | None = None,
    layer: int | None = None, count: Positive = 16, words: Positive = 5,
) -> Table:  # fmt: skip
    """Find the neurons whose value vectors point along a direction, and what became of them in a tuned model.

    Each row is a neuron: the cosine of what it writes into the stream with the direction, the tokens it raises most,
    its mean activation on the prompts, and, for a tuned model, the cosine of its value vector there with that here and
    its mean activation there: after preference tuning the vectors stay and are bypassed (Lee et al. 2024,
    arXiv:2401.01967). To remove them subtract them: an `Edit` of "mlp.post" that zeroes the neurons. Exact for the
    weights; activations are means over all tokens.

    Args:
        subject: a pre-norm decoder of one stack.
        direction: a learned direction (its `probes` where it has some, as in the paper), or a vector [dimension].
        prompts: to measure activations on; none leave those columns out.
        tuned: the same model after tuning.
        layer: whose direction of those learned; None takes the method's choice.
        count: how many neurons.
        words: how many tokens to name.

    Returns:
        Table with a row per neuron, largest cosine first.

    Raises:
        CapabilityError: a model without one pre-norm stack.
        EditError: a vector of another width.
        InputError: a tuned model of another shape.
    """
    vector = torch.as_tensor(_vector(direction, layer)).double().cpu()
    values = [neuron_weights(subject, at).double().cpu() for at in range(subject.layers)]
    _check_vector(vector, values[0].shape[1])
    cosines = torch.stack([one @ vector / one.norm(dim=1).clamp(min=1e-30) for one in values]) / vector.norm()
    neurons = [divmod(int(i), cosines.shape[1]) for i in cosines.flatten().argsort(descending=True)[:count]]
    output = unembedding(subject).double().cpu()
    columns, rows = ["layer", "neuron", "cosine", "tokens"], []
    for at, neuron in neurons:
        raised = (output @ values[at][neuron]).topk(words).indices
        rows.append([at, neuron, float(cosines[at, neuron]), " ".join(output_name(subject, int(i)) for i in raised)])
    here = _activations(subject, prompts, neurons) if len(prompts) else None
    if here is not None:
        columns.append("activation")
        rows = [[*row, float(one)] for row, one in zip(rows, here, strict=True)]
    evidence = [_chance(cosines, neurons)]
    if tuned is not None:
        own = {at: neuron_weights(tuned, at).double().cpu() for at in {at for at, _ in neurons}}
        if any(own[at].shape != values[at].shape for at in own):
            raise InputError(f"{tuned.name} has other shapes than {subject.name}; give the same model after tuning.")
        same = [float(torch.cosine_similarity(own[at][n], values[at][n], dim=0)) for at, n in neurons]
        columns.append("cosine with tuned")
        rows = [[*row, one] for row, one in zip(rows, same, strict=True)]
        if here is not None:
            there = _activations(tuned, prompts, neurons)
            columns.append("activation in tuned")
            rows = [[*row, float(one)] for row, one in zip(rows, there, strict=True)]
            evidence.append(_bypassed(here, there, same))
    return Table(
        title="Neurons that write along a direction", columns=tuple(columns), rows=tuple(map(tuple, rows)),
        evidence=tuple(evidence),
    )  # fmt: skip


def _check_vector(vector: torch.Tensor, width: int) -> None:
    if vector.shape != (width,) or not bool(torch.isfinite(vector).all()) or not float(vector.norm()):
        raise EditError(
            f"A vector from another model: a direction of shape {tuple(vector.shape)} was given for a stream of "
            f"{width} components; give a finite one of that width that is not zero."
        )


def _vector(direction: Learned | Array, layer: int | None) -> np.ndarray | Array:
    if not isinstance(direction, Learned):
        return direction
    own = [int(one) for one in direction.settings["layers"]]
    chosen = int(direction.settings["layer"]) if layer is None else layer
    if chosen not in own:
        raise InputError(f"Layer {chosen} was asked for, but the direction was learned for {own}; use one of these.")
    return direction.tensors["probes" if "probes" in direction.tensors else "directions"][own.index(chosen)]


@torch.no_grad()
def _activations(subject: Subject, prompts: Sequence[Any], neurons: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the mean activation of neurons over the tokens of all prompts."""
    sites = {at: str(Site("", at, "mlp.post")) for at in sorted({at for at, _ in neurons})}
    sums, count = np.zeros(len(neurons)), 0
    for prompt in prompts:
        found = capture(subject, prompt, list(sites.values()))
        count += len(found[sites[neurons[0][0]]])
        sums += [float(found[sites[at]][:, neuron].double().sum()) for at, neuron in neurons]
    means: np.ndarray = sums / count
    return means


def _chance(cosines: torch.Tensor, neurons: Sequence[tuple[int, int]]) -> Evidence:
    taken = torch.stack([cosines[at, neuron] for at, neuron in neurons])
    spread = float(cosines.std())
    return Evidence(
        "alignment beyond chance",
        f"The {len(neurons)} neurons have a mean cosine of {float(taken.mean()):.3f} (largest "
        f"{float(taken.max()):.3f}); all {cosines.numel()} cosines have a standard deviation of {spread:.3f}, so that "
        f"the largest of as many normal draws would be about {_largest(cosines, spread):.3f}.",
        {"mean": float(taken.mean()), "largest": float(taken.max()), "spread": spread},
    )


def _largest(cosines: torch.Tensor, spread: float) -> float:
    """Return about what the largest of so many normal draws of this spread is: s sqrt(2 log n)."""
    return spread * float(np.sqrt(2 * np.log(cosines.numel())))


def _bypassed(here: np.ndarray, there: np.ndarray, same: Sequence[float]) -> Evidence:
    return Evidence(
        "what tuning did",
        f"In the tuned model the value vectors have a mean cosine of {np.mean(same):.3f} with those here, and their "
        f"mean activation goes from {here.mean():.3g} to {there.mean():.3g}.",
        {"cosine": float(np.mean(same)), "before": float(here.mean()), "after": float(there.mean())},
    )
