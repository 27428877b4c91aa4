"""PMET: find what attention and feed-forward layer should say together, and write the feed-forward layer's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from pellucid.core.facts import Fact
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import WeightEdit
from pellucid.engine import key_covariance
from pellucid.engine.value_optimisation import Settings, optimise_values
from pellucid.methods.editing._shared import ask, finished, optimisation, solved, spread
from pellucid.models.subject import Subject


@method(
    rows=("EDT-7",),
    paper="arXiv:2308.08742",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
    cost="prompts*7*((steps+3)*F+steps*B)+prompts*12*layers*F+32*layers*F+16*neurons*F",
)
def pmet(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layers: Sequence[int] | None = None,
    token: Literal["traced", "subject", "last"] = "traced", count: Positive = 3,
    weight: PositiveFloat | None = None, texts: Sequence[Any] | None = None,
    prefixes: Sequence[str] | None = None, steps: Positive = 30, rate: PositiveFloat = 0.2, clamp: PositiveFloat = 2.0,
    decay: NonNegativeFloat = 0.5, essence: NonNegativeFloat = 1.0, neutral: Sequence[Any] | None = None,
    seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Write facts into feed-forward matrices, toward outputs that were optimised together with those of attention.

    Vectors added to attention's output and to the feed-forward output of the last layer, at the edited token,
    are optimised together; only the feed-forward part becomes weights, as attention is taken to hold general ways of
    extraction. For each layer from the lowest D = R K^T (weight C + K K^T)^-1, as in `memit`, with
    R = (wanted - present feed-forward output of the last layer) / sqrt(layers left). Exact: each D satisfies its normal
    equations (Li et al. 2023, arXiv:2308.08742).

    Args:
        subject: a decoder with a language-model head, without a norm behind its feed-forward layers.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them.
        layers: where; None means the `count` neighbouring layers where causal tracing finds most on this model.
        token: what is edited, the subject's last token (as in the papers), the prompt's last token, or the one where
            tracing finds the facts.
        count: how many layers, where tracing chooses them.
        weight: of other text, in tokens; less writes harder. None means a tenth of the number of neurons.
        texts: what C is measured on; None means text that the model writes itself.
        prefixes: texts before the prompt over which keys and outputs hold; None means five that the model writes.
        steps: of Adam.
        rate: of Adam.
        clamp: how long a change may get, in lengths of the output.
        decay: weight of these lengths in the loss.
        essence: weight of KL(now | before) behind "SUBJECT is a".
        neutral: texts on which side effects are measured; None means text that the model writes itself.
        seed: of noise, prefixes and own texts.

    Returns:
        WeightEdit with the factors of one matrix per layer, of rank at most the number of facts.

    Raises:
        CapabilityError: no decoder, mixtures of experts, a norm behind feed-forward layers, quantised weights.
        InputError: a fact whose subject is not in its prompt.
        EditError: a tied matrix, or a loss that is no number; the model is unchanged.
    """
    asked = ask(subject, facts, layers, token, count, prefixes, seed)
    top = asked.layers[-1]
    sites = [f"blocks.{top.layer}.attn.out", top.value]
    found = optimise_values(subject, sites, asked.wordings, Settings(steps, rate, essence, decay, clamp))
    moments = key_covariance.key_covariance(subject, asked.layers, texts, seed)

    def change(number: int, keys: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return residual.T, solved((weight or keys.shape[1] / 10) * moments[number].shrunk(), keys)

    edit, missed = spread(subject, asked, top.value, found, lambda left: left**-0.5, change)
    account = (optimisation(found), key_covariance.evidence(asked.layers, moments), missed)
    return finished(subject, "PMET", asked, edit.with_evidence(*account), neutral, seed)
