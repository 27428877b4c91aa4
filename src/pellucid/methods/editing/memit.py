"""MEMIT: write many facts at once into the feed-forward matrices of several layers."""

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
    rows=("EDT-6",),
    paper="arXiv:2210.07229",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
    cost="prompts*7*((steps+3)*F+steps*B)+prompts*12*layers*F+32*layers*F+16*neurons*F",
)
def memit(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layers: Sequence[int] | None = None,
    token: Literal["traced", "subject", "last"] = "traced", count: Positive = 3,
    weight: PositiveFloat | None = None, texts: Sequence[Any] | None = None,
    prefixes: Sequence[str] | None = None, steps: Positive = 25, rate: PositiveFloat = 0.5, clamp: PositiveFloat = 0.75,
    decay: NonNegativeFloat = 0.5, essence: NonNegativeFloat = 0.0625, neutral: Sequence[Any] | None = None,
    seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Write facts into the feed-forward matrices of several layers, by least squares against the keys of other text.

    For each layer from the lowest, D = R K^T (weight C + K K^T)^-1, with K the facts' keys on the model as edited so
    far, C the second moment of keys of other text, and R = (z - what stands at the last layer) / layers left, where z
    is the state at the edited token, behind the last layer, that makes the target likely. Exact: each D
    satisfies its normal equations D (weight C + K K^T) = R K^T (Meng et al. 2023, arXiv:2210.07229).

    Args:
        subject: a decoder with a language-model head, without a norm behind its feed-forward layers.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them.
        layers: where; None means the `count` neighbouring layers where causal tracing finds most on this model.
        token: what is edited, the subject's last token (as in the papers), the prompt's last token, or the one where
            tracing finds the facts.
        count: how many layers, where tracing chooses them.
        weight: of other text, in tokens; less writes harder. None means a tenth of the number of neurons, which is to
            the facts what 1,600 is at 16,000 neurons (the paper takes 15,000 there).
        texts: what C is measured on; None means text that the model writes itself.
        prefixes: texts before the prompt over which keys and states hold; None means five that the model writes.
        steps: of Adam, for the states.
        rate: of Adam.
        clamp: how long the change of a state may get, in lengths of the state.
        decay: weight of that length in the loss.
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
    top = f"blocks.{asked.layers[-1].layer}.resid_post"
    found = optimise_values(subject, [top], asked.wordings, Settings(steps, rate, essence, decay, clamp))
    moments = key_covariance.key_covariance(subject, asked.layers, texts, seed)

    def change(number: int, keys: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return residual.T, solved((weight or keys.shape[1] / 10) * moments[number].shrunk(), keys)

    edit, missed = spread(subject, asked, top, found, lambda left: 1 / left, change)
    account = (optimisation(found), key_covariance.evidence(asked.layers, moments), missed)
    return finished(subject, "MEMIT", asked, edit.with_evidence(*account), neutral, seed)
