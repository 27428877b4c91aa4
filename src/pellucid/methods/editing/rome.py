"""ROME: write a fact as one key and one value into the feed-forward matrix of one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from pellucid.core.facts import Fact
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine import key_covariance
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.value_optimisation import Settings, optimise_values
from pellucid.methods.editing._shared import ask, finished, optimisation, values_at
from pellucid.models.subject import Subject


@method(
    rows=("EDT-5",),
    paper="arXiv:2202.05262",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
    cost="prompts*7*((steps+3)*F+steps*B)+32*layers*F+16*neurons*F",
)
def rome(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layer: Count | None = None,
    token: Literal["traced", "subject", "last"] = "traced",
    form: Literal["corrected", "original"] = "corrected", texts: Sequence[Any] | None = None,
    prefixes: Sequence[str] | None = None, steps: Positive = 20, rate: PositiveFloat = 0.5, clamp: PositiveFloat = 4.0,
    decay: NonNegativeFloat = 0.5, essence: NonNegativeFloat = 0.0625, neutral: Sequence[Any] | None = None,
    seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Write facts into one feed-forward matrix, each by a change of rank one.

    W' = W + (v - W k) (C^-1 k)^T / (k^T C^-1 k), with k the mean key of the edited token over wordings, C the
    second moment of keys, and v the value that makes the target likely (see `pellucid.engine.value_optimisation`).
    Exact: W' k = v, and W' is the matrix nearest to W in the norm of C that does this. "corrected" takes the same mean
    key in all places (Gupta et al. 2024, arXiv:2403.07175); "original" takes the key without prefix in k but the mean
    in C^-1 k (Meng et al. 2022, arXiv:2202.05262). Several facts share one matrix: values are optimised together on the
    model before the edit and written one after the other, so a later one may disturb an earlier.

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them; targets of many tokens are
            teacher-forced.
        layer: where; None means where causal tracing finds the facts on this model.
        token: what is edited, the subject's last token (as in the papers), the prompt's last token, or the one where
            tracing finds the facts.
        form: which key is divided by.
        texts: what C is measured on; None means text that the model writes itself.
        prefixes: texts before the prompt over which key and value hold; None means five that the model writes.
        steps: of Adam, for the value.
        rate: of Adam.
        clamp: how long the change of the value may get, in lengths of the value.
        decay: weight of that length in the loss.
        essence: weight of KL(now | before) behind "SUBJECT is a".
        neutral: texts on which side effects are measured; None means text that the model writes itself.
        seed: of noise, prefixes and own texts.

    Returns:
        WeightEdit with the factors of one matrix, in the model's own layout. Its evidence says where the layer came
        from, how sure C is, whether W' k = v, the targets' probability before and after, and the side effects.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError: a fact whose subject is not in its prompt.
        EditError: a tied matrix, or a loss that is no number; the model is unchanged.
    """
    asked = ask(subject, facts, layer, token, 1, prefixes, seed)
    at = asked.layers[0]
    keys = values_at(subject, asked.wordings, [at.key])[at.key]
    found = optimise_values(subject, [at.value], asked.wordings, Settings(steps, rate, essence, decay, clamp))
    moments = key_covariance.key_covariance(subject, [at], texts, seed)
    wanted = (found.start[at.value] + found.vectors[at.value]).double()
    mean, used = keys.mean(1), keys.mean(1) if form == "corrected" else keys[:, 0]
    left, right = _written(at, mean, used, wanted, moments[0].shrunk())
    edit = WeightEdit(factors={at.name: at.factors(left.T, right)}, weights_hash=subject.weights_hash())
    account = (optimisation(found), key_covariance.evidence([at], moments), _fits(at, edit, used, wanted))
    return finished(subject, "ROME", asked, edit.with_evidence(*account), neutral, seed)


def _written(
    at: DownProjection, mean: torch.Tensor, used: torch.Tensor, wanted: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors [facts, dimension] and [facts, neuron] of writing facts one after the other."""
    directions = torch.linalg.solve(second, mean.T).T
    directions = directions / directions.norm(dim=1, keepdim=True)
    left = torch.zeros_like(wanted)
    now = used @ at.matrix.T + _bias(at)
    for i in range(len(wanted)):
        left[i] = (wanted[i] - now[i]) / (directions[i] @ used[i])
        now = now + torch.outer(used @ directions[i], left[i])
    return left, directions


def _bias(at: DownProjection) -> torch.Tensor:
    bias = at.module.bias
    return torch.zeros((), dtype=torch.float64) if bias is None else bias.detach().double()  # type: ignore[union-attr]


def _fits(at: DownProjection, edit: WeightEdit, used: torch.Tensor, wanted: torch.Tensor) -> Evidence:
    """Return how far W' k is from v: of the last fact exactly 0, of earlier ones what later facts have disturbed."""
    delta = torch.as_tensor(edit.delta(at.name)).double().to(used.device)
    new = at.matrix + (delta.T if at.transposed else delta)
    gaps = (used @ new.T + _bias(at) - wanted).norm(dim=1) / wanted.norm(dim=1)
    summary = f"W' k differs from v by {float(gaps.max()):.2g} of |v| at most, over {len(wanted)} facts."
    return Evidence(
        "W' k = v", summary, {"worst": float(gaps.max()), "last": float(gaps[-1])}, ok=bool(gaps[-1] < 1e-4)
    )
