"""Self-repair (the hydra effect): how later parts make up for a part that is taken away."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.direct_path import linear_readout
from pellucid.engine.planning import in_batches
from pellucid.engine.question import ask
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.stream_parts import StreamParts, part_sites, stream_parts
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit
from pellucid.models.layout import main_stack
from pellucid.models.subject import Subject

COLUMNS = ("direct effect", "total effect", "repair by attention", "repair by feed-forward", "repair by norms and head")


@method(
    rows=("TXB-9",),
    paper="arXiv:2307.15771",
    takes="prompt",
    produces="scores",
    axes=("layer", "part"),
    needs=("activations", "gradients"),
    cost="(layers+4)*F+B",
)
def self_repair(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    ablate: Literal["attn", "mlp"] = "attn", ablation: Literal["zero", "mean"] = "zero",
    source: PromptLike | None = None,
) -> Scores:  # fmt: skip
    """Compare what an ablated part stops writing towards a logit with what the logit loses, and say who makes it up.

    Per layer: direct effect = (c - c') . u, what the part no longer writes, u the clean run's direction of the logit
    (norms at their divisors); total effect = f(clean) - f(ablated); repair = sum of (c'_m - c_m) . u over later parts m
    of a kind; positive repair brings the logit back. Exact: total = direct - all repair, where the last repair
    (the final norm's new divisor, a cap of the logits) is what the written parts leave (McGrath et al. 2023,
    arXiv:2307.15771). Ablated are the positions whose stream the logit is read from.

    Args:
        subject: the model, from `pellucid.load`; of an encoder-decoder, the decoder.
        prompt: text, chat or token ids.
        target: what to explain, a token or class; None means what the model predicts.
        contrast: the alternative to compare with.
        ablate: the attention or the feed-forward layer of each block in turn.
        ablation: its output becomes zero, or its own mean over the prompt.
        source: another prompt of equal length whose output takes the place instead (the paper's resampling).

    Returns:
        Scores [layer, part], one part per quantity.

    Raises:
        InputError: a source of another length, or a mean over one position.
        TargetError: a target that is no logit.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    tokens, readout = question.tokens, linear_readout(question.readout, "self_repair")
    clean = stream_parts(subject, tokens, readout)
    sites = [name for name in part_sites(subject) if parse_site(name).part == f"{ablate}.out"]
    put = _replacements(subject, tokens, clean, sites, ablation, source)
    edits = [
        (Edit(name, "set", put[name][_places(clean, i, ablate)], {"position": tuple(_places(clean, i, ablate))}),)
        for i, name in enumerate(sites)
    ]
    totals, changes = _ablated(subject, tokens, readout, clean, edits)
    kinds = np.array([part.kind for part in clean.parts])
    own = np.array([[part.layer == i and part.kind == ablate for part in clean.parts] for i in range(len(sites))])
    direct = -(changes * own).sum(1)
    feed = (changes * ~own * (kinds == "mlp")).sum(1)
    attention = (changes * ~own * (kinds != "mlp")).sum(1)
    values = np.stack([direct, totals, attention, feed, direct - attention - feed - totals], axis=1)
    how = "another prompt's output" if source is not None else "its mean" if ablation == "mean" else "zero"
    return Scores(
        title=f"Self-repair when {'attention' if ablate == 'attn' else 'feed-forward'} becomes {how}",
        values=values,
        axes=("layer", "part"),
        labels={"layer": tuple(str(i) for i in range(len(sites))), "part": COLUMNS},
        unit=readout.unit,
        sign="positive effects: the target loses; positive repair: it is brought back",
        tokens=tokens,
        target=readout.description,
        evidence=(_slope(values),),
    )


def _places(clean: StreamParts, layer: int, kind: str) -> list[int]:
    """Return the positions whose stream the value is read from, by way of a part."""
    part = next(part for part in clean.parts if part.layer == layer and part.kind == kind)
    return [int(p) for p in part.direction.abs().amax(-1).nonzero()[:, 0]]


def _replacements(
    subject: Subject, tokens: Tokens, clean: StreamParts, sites: list[str], ablation: str, source: PromptLike | None
) -> dict[str, torch.Tensor]:
    if source is not None:
        other = subject.encode(source)
        if len(other) != len(tokens):
            raise InputError(
                f"The source has {len(other)} tokens and the prompt {len(tokens)}; give a source of equal length."
            )
        return capture(subject, other, sites)
    found = {name: clean.output.row(name, 0) for name in sites}
    if ablation == "zero":
        return {name: torch.zeros_like(value) for name, value in found.items()}
    if len(found[sites[0]]) == 1:
        raise InputError("The mean over one position is the value itself; use ablation='zero', or give a source.")
    return {name: value.mean(0, keepdim=True).expand_as(value) for name, value in found.items()}


def _ablated(
    subject: Subject, tokens: Tokens, readout: Readout, clean: StreamParts, edits: list[tuple[Edit, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the total effect of each ablation, and how it changes what every part adds directly [edits, parts]."""
    names, layout = part_sites(subject), subject.need_layout()
    scale = layout.stacks[main_stack(layout)].residual_scale

    def run(batch: list[tuple[Edit, ...]]) -> list[tuple[float, list[float]]]:
        values, output = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=batch, capture=names)
        assert output is not None
        return [
            (
                clean.value - float(values[i, 0]),
                [
                    float(
                        ((scale * output.row(name, i).to(part.written) - part.written) * part.direction).double().sum()
                    )
                    for name, part in zip(names, clean.parts, strict=True)
                ],
            )
            for i in range(len(batch))
        ]

    with torch.no_grad():
        found = in_batches(edits, [len(tokens)] * len(edits), run)
    return np.array([total for total, _ in found]), np.array([changes for _, changes in found])


def _slope(values: np.ndarray) -> Evidence:
    direct, total = values[:, 0], values[:, 1]
    slope = float(direct @ total / max(float(direct @ direct), 1e-30))
    repaired = float(values[:, 2:].sum())
    return Evidence(
        "total on direct effect",
        f"Over the layers, total effects are {slope:.2g} times the direct ones (1 without repair), and later parts "
        f"bring back {repaired:.3g} of {float(direct.sum()):.3g}.",
        {"slope": slope, "repair": repaired, "direct": float(direct.sum()), "total": float(total.sum())},
    )
