"""Causal tracing: add noise to the subject's embeddings, put single clean values back and see the answer return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat, PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.cone import score_edits
from pellucid.engine.readout import Readout
from pellucid.engine.targets import resolve
from pellucid.engine.variants import token_site
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("MET-1",),
    paper="arXiv:2202.05262",
    takes="prompt",
    produces="scores",
    axes=("layer", "position"),
    needs=("activations",),
    cost="(samples*(layers*positions+2)+4)*F",
)
def causal_tracing(
    subject: Subject, prompt: PromptLike, *, corrupted: str | Sequence[int] | None = None, target: TargetLike = None,
    contrast: int | str | None = None, site: SiteName = "resid_post", window: Positive = 1, noise: PositiveFloat = 3.0,
    samples: Positive = 10, severed: Literal["none", "mlp.out", "attn.out"] = "none", seed: Count = 0,
) -> Scores:  # fmt: skip
    """Score each layer and position by how much of the answer its clean value brings back under noise.

    IE[l, p] = E over noise of f(noisy with the clean value at layers around l, position p) - f(noisy), where noise
    ~ N(0, (noise * sigma)^2) is added to the embeddings of the corrupted tokens and sigma is the standard deviation of
    the embedding table; positive means that the place carries what the noise destroyed. Exact for the noise drawn,
    with standard errors over draws (Meng et al. 2022, arXiv:2202.05262). Noise leaves the data the model knows: where
    a second prompt exists, prefer `activation_patching` (Zhang & Nanda 2023, arXiv:2309.16042).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        corrupted: the text inside the prompt that gets the noise (the subject of a fact), or token positions; None
            means every token that is not special.
        target: what to explain; a plain token is measured by its probability, as in the paper.
        contrast: the alternative to compare with.
        site: what is restored: "resid_post", "mlp.out", "attn.out" or another site with a position axis.
        window: number of layers restored together, around each layer (10 in the paper for mlp.out and attn.out).
        noise: standard deviations of noise.
        samples: draws of noise.
        severed: hold this site of the restored position at its noisy value in all later layers.
        seed: of the noise.

    Returns:
        Scores [layer, position] with standard errors; clean and noisy scores are in the evidence.

    Raises:
        InputError: `corrupted` is not in the prompt.
        SiteError: a site that the model lacks.
    """
    tokens = subject.encode(prompt)
    places = _places(tokens, corrupted)
    asked = target if isinstance(target, Target) or callable(target) else Target(target, measure="prob")
    readout = resolve(subject, tokens, asked, contrast)
    names = expand(subject, part_name(subject, site))
    clean = capture(subject, tokens, names)
    cut = [] if severed == "none" else expand(subject, part_name(subject, severed))
    start = min(places)  # left of the noise nothing has changed, so nothing can be restored
    grid = [(layer, position) for layer in range(len(names)) for position in range(start, len(tokens))]
    sets: list[tuple[Edit, ...]] = [()]
    restored = _restored(clean, names, window, grid)
    sigma = subject.model.get_input_embeddings().weight.detach().float().std()
    for draw in range(samples):
        drawn = _noise(subject, places, noise * sigma, seed + draw)
        kept = capture(subject.with_(drawn), tokens, cut) if cut else {}
        held = [_held(kept, cut, layer + (window - 1) // 2, position) for layer, position in grid]
        sets += [(drawn,), *((drawn, *again, *still) for again, still in zip(restored, held, strict=True))]
    scores = score_edits(subject, tokens, readout, sets).sum(1)
    whole, scores = float(scores[0]), scores[1:].reshape(samples, -1)
    effects = np.zeros((samples, len(names), len(tokens)))
    effects[:, :, start:] = (scores[:, 1:] - scores[:, :1]).reshape(samples, len(names), -1)
    title = f"Causal tracing at {site}" + (f", windows of {window}" if window > 1 else "")
    return _answer(title, tokens, readout, effects).with_evidence(_total(whole, scores[:, 0]))


def _answer(title: str, tokens: Tokens, readout: Readout, grids: np.ndarray) -> Scores:
    """Return the mean over draws of grids [draws, layers, positions], with its standard error."""
    draws, layers, _ = grids.shape
    return Scores(
        title=title, values=grids.mean(0), std_error=grids.std(0, ddof=1) / np.sqrt(draws) if draws > 1 else None,
        axes=("layer", "position"), unit=readout.unit, tokens=tokens, target=readout.description,
        sign="positive restores the clean answer", labels={"layer": tuple(str(i) for i in range(layers))},
    )  # fmt: skip


def _places(tokens: Tokens, corrupted: str | Sequence[int] | None) -> tuple[int, ...]:
    """Return the token positions that get the noise."""
    if corrupted is None:
        return tuple(p for p in range(len(tokens)) if not tokens.special[p])
    if not isinstance(corrupted, str):
        found = tuple(int(p) for p in corrupted)
        if not found or not all(0 <= p < len(tokens) for p in found):
            raise InputError(f"Noise was asked for at {list(found)}, but positions are 0 to {len(tokens) - 1}.")
        return found
    start = tokens.text.find(corrupted) if corrupted and tokens.offsets is not None else -1
    if start < 0 or tokens.offsets is None:
        raise InputError(
            f"The text {corrupted!r} that noise was asked for is not in the prompt {tokens.text!r}; give a part of the "
            "prompt, or token positions."
        )
    end = start + len(corrupted)
    return tuple(p for p, (a, b) in enumerate(tokens.offsets) if a < end and b > start and not tokens.special[p])


def _noise(subject: Subject, places: tuple[int, ...], deviation: torch.Tensor, seed: int) -> Edit:
    weight = subject.model.get_input_embeddings().weight.detach()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(places), weight.shape[1], generator=generator).to(weight)
    return Edit(token_site(subject), "add", deviation * drawn, {"position": places})


def _restored(
    clean: dict[str, torch.Tensor], names: list[str], window: int, grid: list[tuple[int, int]]
) -> list[tuple[Edit, ...]]:
    """Return the edits of each place of the grid; windows share theirs, which the engine then runs once."""
    sites = {(name, p): Edit(name, "patch_from", clean[name], {"position": p}) for name in names for _, p in grid}
    return [
        tuple(sites[name, p] for name in names[max(0, layer - window // 2) : layer + (window + 1) // 2])
        for layer, p in grid
    ]


def _held(kept: dict[str, torch.Tensor], cut: list[str], layer: int, position: int) -> tuple[Edit, ...]:
    return tuple(Edit(name, "patch_from", kept[name], {"position": position}) for name in cut[layer + 1 :])


def _total(clean: float, noisy: np.ndarray) -> Evidence:
    effect = clean - float(noisy.mean())
    return Evidence(
        "total effect",
        f"The target scores {clean:.3g} on the clean prompt and {noisy.mean():.3g} under noise, so a full repair is "
        f"{effect:+.3g}.",
        {"clean": clean, "noisy": float(noisy.mean()), "difference": effect},
        ok=effect > 0,
    )
