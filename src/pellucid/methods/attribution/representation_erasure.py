"""Representation erasure: what the target loses when one dimension, hidden unit or head is set to zero."""

from __future__ import annotations

import itertools

import numpy as np

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.cone import score_edits
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

WHOLE = ("embed.token", "embed", "final_norm")


@method(
    rows=("FAP-1",),
    paper="arXiv:1612.08220",
    takes="prompt",
    produces="scores",
    axes=("layer", "dimension"),
    needs=("activations",),
    cost="(layers*dimensions+3)*F",
)
def representation_erasure(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    site: SiteName = "resid_post", position: int | None = None, relative: bool = False,
) -> Scores:  # fmt: skip
    """Score each part of a representation by the drop of the target when that part is set to zero.

    I(d) = s(x) - s(x, without d), divided by |s(x)| with `relative`; positive raises the target. d is erased at every
    position, or at one. Exact for what it states. The paper's importance of d is the mean of the relative drop over N
    examples: the mean of the results for a list of prompts (Li et al. 2016, arXiv:1612.08220).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        site: a part of every block ("resid_post", "mlp.post", "attn.z", ...; heads are erased whole), one block's site
            such as "blocks.1.mlp.post", or "embed.token", "embed", "final_norm".
        position: the token position at which parts are erased, negative ones from the end; None means all.
        relative: divide by |s(x)|.

    Returns:
        Scores [layer, dimension] ([layer, neuron], [layer, head]; without layer for a single site), and [.., target]
        for a target with `each`.

    Raises:
        InputError: a position outside the prompt, or `relative` where s(x) is 0.
        SiteError: a site that the model lacks.
    """
    tokens = subject.encode(prompt)
    readout = resolve(subject, tokens, target, contrast)
    if position is not None and not -len(tokens) <= position < len(tokens):
        raise InputError(f"Position {position} was asked for, but the prompt has {len(tokens)} tokens.")
    bare = site.removeprefix("encoder.").removeprefix("decoder.")
    single = "*" not in site and (bare.startswith("blocks.") or bare in WHOLE)
    names = [site] if single else expand(subject, part_name(subject, site))
    value = capture(subject, tokens, names[:1])[names[0]]
    sizes = dict(zip(parse_site(names[0]).axes, value.shape, strict=True))
    axis = "head" if "head" in sizes else parse_site(names[0]).axes[-1]
    place = {} if position is None else {"position": position % len(tokens)}
    edits = [
        (Edit(name, "zero", where={**place, axis: part}),)
        for name, part in itertools.product(names, range(sizes[axis]))
    ]
    whole = score_edits(subject, tokens, readout, [()])
    drop = whole - score_edits(subject, tokens, readout, edits)
    if relative and bool((whole == 0).any()):
        raise InputError("The target scores 0, so its relative drop is not defined; use relative=False.")
    grid = (drop / np.abs(whole) if relative else drop).reshape(len(names), sizes[axis], -1)
    axes = (axis,) if single else ("layer", axis)
    grid = grid[0] if single else grid
    return Scores(
        title=f"Representation erasure at {site}",
        values=grid if readout.each else grid[..., 0],
        axes=(*axes, "target") if readout.each else axes,
        unit=f"share of {readout.unit}" if relative else readout.unit,
        tokens=tokens,
        target=readout.description,
        labels={"layer": tuple(str(i) for i in range(len(names)))} if not single else {},
    )
