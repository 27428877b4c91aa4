"""AlphaEdit: write facts only in directions that the keys of other text do not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine import key_covariance
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.edit_requests import Place, wordings
from pellucid.engine.key_covariance import Moments
from pellucid.engine.value_optimisation import Settings, optimise_values
from pellucid.methods.editing._shared import ask, finished, optimisation, spread, values_at
from pellucid.models.subject import Subject


@method(
    rows=("N-ED1",),
    paper="arXiv:2410.02355",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
    cost="prompts*7*((steps+3)*F+steps*B)+prompts*12*layers*F+32*layers*F+16*neurons*F",
)
def alphaedit(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layers: Sequence[int] | None = None,
    token: Literal["traced", "subject", "last"] = "traced", count: Positive = 3,
    earlier: Sequence[Any] = (), threshold: PositiveFloat = 0.3, ridge: PositiveFloat = 0.03,
    texts: Sequence[Any] | None = None, prefixes: Sequence[str] | None = None, steps: Positive = 25,
    rate: PositiveFloat = 0.5, clamp: PositiveFloat = 0.75, decay: NonNegativeFloat = 0.5,
    essence: NonNegativeFloat = 0.0625, neutral: Sequence[Any] | None = None, seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Write facts as `memit` does, projected away from the directions that keys of other text use.

    D = R K^T P (K_p K_p^T P + K K^T P + ridge I)^-1 for each layer from the lowest, with P the projector on the
    eigenvectors of the second moment of keys whose eigenvalues are below `threshold`, and K_p the keys of facts that
    were written earlier. Exact: keys without a part in that null space are mapped as before (D k = 0); other text whose
    keys have a small part there moves a little (Fang et al. 2024, arXiv:2410.02355). The paper's threshold and ridge
    are absolute numbers, which suit one scale of activations; here both are relative.

    Args:
        subject: a decoder with a language-model head, without a norm behind its feed-forward layers.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them.
        layers: where; None means the `count` neighbouring layers where causal tracing finds most on this model.
        token: what is edited, the subject's last token (as in the papers), the prompt's last token, or the one where
            tracing finds the facts.
        count: how many layers, where tracing chooses them.
        earlier: facts written before into this subject, which are to stay.
        threshold: eigenvalues below this many mean eigenvalues count as unused.
        ridge: weight of the identity, in mean squared lengths of the facts' keys inside the null space.
        texts: what is protected; None means text that the model writes itself.
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
    free = [_null_space(one, threshold) for one in moments]
    before = _earlier_keys(subject, asked.layers, earlier, asked.token)

    def change(number: int, keys: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return residual.T, _projected(keys, before[number], free[number], ridge)

    edit, missed = spread(subject, asked, top, found, lambda left: 1 / left, change)
    account = (optimisation(found), key_covariance.evidence(asked.layers, moments), _room(asked.layers, free), missed)
    return finished(subject, "AlphaEdit", asked, edit.with_evidence(*account), neutral, seed)


def _null_space(moments: Moments, threshold: float) -> torch.Tensor:
    """Return the eigenvectors [neuron, free] of the second moment, not shrunk, whose eigenvalues are small."""
    values, vectors = torch.linalg.eigh(moments.matrix)
    return vectors[:, values < threshold * values.clamp(min=0).mean()]


def _room(layers: Sequence[DownProjection], free: Sequence[torch.Tensor]) -> Evidence:
    shares = {f"layer {at.layer}": one.shape[1] / len(one) for at, one in zip(layers, free, strict=True)}
    least, most = min(shares.values()), max(shares.values())
    summary = f"Other text leaves {least:.1%} to {most:.1%} of the directions of keys unused."
    return Evidence("null space", summary, shares)


def _projected(keys: torch.Tensor, before: torch.Tensor, free: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return K^T P (K_p K_p^T P + K K^T P + ridge I)^-1: [facts, neuron], solved inside the null space.

    With P = U U^T and a = K^T U this is a (b^T b + a^T a + ridge I)^-1 U^T, b the part of earlier keys; `ridge` is
    given in units of the mean squared row of a.
    """
    own, old = keys @ free, before @ free
    inner = old.T @ old + own.T @ own + ridge * own.square().sum(1).mean() * torch.eye(free.shape[1]).to(free)
    return torch.linalg.solve(inner, own.T).T @ free.T


def _earlier_keys(
    subject: Subject, layers: Sequence[DownProjection], earlier: Sequence[Any], token: Place
) -> list[torch.Tensor]:
    """Return the keys [facts, neuron] of facts written before, as they stand now, per layer."""
    sites = [at.key for at in layers]
    if not earlier:
        return [torch.zeros(0, at.neurons, dtype=torch.float64, device=at.weight.device) for at in layers]
    found = values_at(subject, wordings(subject, as_facts(earlier), (), token), sites)
    return [found[site][:, 0] for site in sites]
