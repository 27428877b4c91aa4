"""Effective attention: the part of the attention weights that the head's output depends on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.capture import capture
from pellucid.engine.patterns import pattern_sites
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("ATT-13",),
    paper="arXiv:1908.04211",
    takes="prompt",
    produces="scores",
    axes=("layer", "head", "query", "key"),
    needs=("attention",),
    cost="2*F",
)
def effective_attention(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, layers: Sequence[int] | None = None
) -> Scores:  # fmt: skip
    """Take from every head's attention weights what its value vectors cancel.

    A_eff = A - projection of the rows of A on the left null space of V [key, dimension], the head's value vectors: of
    all weights that give the head's output A V, those of least norm. Where tokens are at most as many as dimensions of
    a head nothing is taken. In a causal model a row is projected within the keys it sees, so that nothing is given to
    later tokens. Signed, and rows no longer sum to 1. Exact: A_eff V = A V, the gap is in the evidence. The paper
    projects with V times the head's output projection, which has the same null space where that projection loses
    no direction. Its other measure is `hidden_token_attribution` (Brunner et al. 2020, arXiv:1908.04211).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        layers: the blocks that are read; None means all.

    Returns:
        Scores [layer, head, query, key].

    Raises:
        InputError: a layer that the model lacks.
        SiteError: a model whose value vectors cannot be read.
    """
    question = ask(subject, prompt, target=target)
    sites = pattern_sites(subject, layers)
    own = [site.replace("pattern", "v") for site in sites]
    captured = capture(subject, question.tokens, [*sites, *own])
    rtol = max(captured[own[0]].shape) * torch.finfo(captured[own[0]].dtype).eps
    plain, found, gaps = [], [], []
    for site, values in zip(sites, own, strict=True):
        pattern, value = captured[site].double().cpu(), captured[values].double().cpu().transpose(0, 1)
        value = value.repeat_interleave(len(pattern) // len(value), 0)
        effective = _projected(pattern, value, rtol)
        plain.append(pattern.numpy())
        found.append(effective.numpy())
        gaps.append(float((effective @ value - pattern @ value).abs().max()))
    values_, patterns = np.stack(found), np.stack(plain)
    return Scores(
        title="Effective attention",
        values=values_,
        axes=("layer", "head", "query", "key"),
        labels={"layer": tuple(site.split(".")[-3] for site in sites)},
        unit="weight",
        sign="larger in size means more of the head's output hangs on this weight",
        tokens=question.tokens,
        target=question.readout.description,
        evidence=(_removed(patterns, values_, max(gaps)),),
    )


def _projected(pattern: torch.Tensor, value: torch.Tensor, rtol: float) -> torch.Tensor:
    """Return the weights [head, query, key] of least norm with the same output; value [head, key, dimension]."""
    effective = pattern.clone()
    by_keys: dict[tuple[int, ...], list[int]] = {}
    for query, seen in enumerate((pattern > 0).any(0)):
        by_keys.setdefault(tuple(seen.nonzero()[:, 0].tolist()), []).append(query)
    for keys, queries in by_keys.items():
        if len(keys) > 0:
            some = value[:, list(keys)]
            output = pattern[:, queries][:, :, list(keys)] @ some
            rows = output @ torch.linalg.pinv(some, rtol=rtol)
            effective[:, torch.tensor(queries)[:, None], torch.tensor(keys)] = rows
    return effective


def _removed(pattern: np.ndarray, effective: np.ndarray, gap: float) -> Evidence:
    size = np.linalg.norm(pattern, axis=(2, 3))
    share = np.divide(np.linalg.norm(pattern - effective, axis=(2, 3)), size, out=np.zeros_like(size), where=size > 0)
    return Evidence(
        "same output",
        f"The effective weights give the same head outputs within {gap:.2g}; on average {100 * share.mean():.2g} % of "
        "the norm of the attention weights is cancelled by the values.",
        {"residual": gap, "cancelled": float(share.mean())},
        {"x": tuple(float(k) for k in range(len(share))), "cancelled": tuple(share.mean(1).tolist())},
        ok=bool(gap < 1e-3),
    )
