"""PASTA: find the attention heads that, turned towards a part of the prompt, make the model follow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.cone import score_edits
from pellucid.engine.directions import held_out
from pellucid.engine.emphasis import emphasis
from pellucid.engine.readout import Readout
from pellucid.engine.targets import resolve
from pellucid.models.layout import stack_of
from pellucid.models.subject import Subject

Asked = tuple[Tokens, Readout, list[int]]


@method(
    rows=("STR-5",),
    paper="arXiv:2311.02262",
    takes="dataset",
    produces="scores",
    axes=("layer", "head"),
    needs=("attention",),
    cost="prompts*(layers*heads+3)*F",
)
def pasta(
    subject: Subject, prompts: Sequence[Any], emphasised: Sequence[str | tuple[int, int]], targets: Sequence[Any], *,
    contrasts: Sequence[Any] | None = None, heads: Positive = 8, share: Fraction = 0.01,
    test_share: Fraction = 0.25, seed: int = 0,
) -> Scores:  # fmt: skip
    """Profile every head by what turning it towards an emphasised part of the prompt does to the target.

    In a turned head attention to the other tokens is multiplied by `share` and each row normalised again. The value of
    a head is the mean change of the target's score when it alone is turned, over the prompts learned from; the best
    `heads` together are then tried on the prompts held out, beside as many random ones and all heads (Zhang et al.
    2023, arXiv:2311.02262). Exact up to the mean; apply a choice with `pellucid.engine.emphasis.emphasis`.

    Args:
        subject: a decoder.
        prompts: texts, chats or token ids.
        emphasised: the part of each prompt to look at: a text that occurs in it, or a token range (start, end).
        targets: the answer that follows the emphasised part, for each prompt.
        contrasts: another answer for each, to measure the difference to.
        heads: how many are tried together.
        share: what is left of attention to other tokens, relative.
        test_share: share of the prompts that only test.
        seed: of split and random heads.

    Returns:
        Scores [layer, head] with standard errors over prompts; the evidence has the chosen heads together.

    Raises:
        CapabilityError: a model that is no decoder of one stack.
        InputError: not one part and target per prompt, or a text that does not occur.
    """
    if subject.kind != "decoder" or subject.head != "causal-lm":
        raise CapabilityError(
            f"pasta turns the heads of a causal language model, but {subject.name} is a {subject.kind} with head "
            f"{subject.head}; use a decoder."
        )
    asked = _asked(subject, prompts, emphasised, targets, contrasts)
    held = held_out(np.zeros(len(asked), dtype=int), test_share, seed)
    count = stack_of(subject.need_layout(), Site("", 0, "attn.z")).heads.query
    every = [(layer, head) for layer in range(subject.layers) for head in range(count)]
    effects = np.stack([
        _effects(subject, one, [[place] for place in every], share)
        for one, out in zip(asked, held, strict=True) if not out
    ])  # fmt: skip
    order = [every[i] for i in np.argsort(-effects.mean(0), kind="stable")[:heads]]
    drawn = np.random.default_rng(seed).choice(len(every), len(order), replace=False)
    tried = [order, [every[int(i)] for i in drawn], every]
    tested = [one for one, out in zip(asked, held, strict=True) if out] or asked
    joint = np.stack([_effects(subject, one, tried, share) for one in tested])
    shape = (subject.layers, count)
    error = effects.std(0, ddof=1) / np.sqrt(len(effects)) if len(effects) > 1 else np.zeros(len(every))
    return Scores(
        title="Effect of turning each head towards the emphasised part",
        values=effects.mean(0).reshape(shape),
        std_error=error.reshape(shape),
        axes=("layer", "head"),
        unit=asked[0][1].unit,
        sign="positive makes the target more likely",
        target=asked[0][1].description,
        evidence=(_told(joint, order, len(tested), bool(held.any())),),
    )


def _asked(
    subject: Subject, prompts: Sequence[Any], emphasised: Sequence[str | tuple[int, int]], targets: Sequence[Any],
    contrasts: Sequence[Any] | None,
) -> list[Asked]:  # fmt: skip
    others = [None] * len(prompts) if contrasts is None else list(contrasts)
    if (
        isinstance(prompts, str)
        or not len(prompts) == len(emphasised) == len(targets) == len(others)
        or not len(prompts)
    ):
        raise InputError(
            f"pasta got {len(emphasised)} emphasised parts, {len(targets)} targets and {len(others)} contrasts for "
            f"{len(prompts)} prompts; give one of each per prompt."
        )
    found = []
    for prompt, part, target, other in zip(prompts, emphasised, targets, others, strict=True):
        tokens = subject.encode(prompt)
        found.append((tokens, resolve(subject, tokens, target, other), _keys(tokens, part)))
    return found


def _keys(tokens: Tokens, part: str | tuple[int, int]) -> list[int]:
    """Return the positions of a part of the prompt."""
    if not isinstance(part, str):
        found = list(range(max(int(part[0]), 0), min(int(part[1]), len(tokens))))
    else:
        ends = np.cumsum([len(piece) for piece in tokens.pieces])
        start = "".join(tokens.pieces).find(part)
        starts = ends - [len(piece) for piece in tokens.pieces]
        found = [] if start < 0 else np.flatnonzero((starts < start + len(part)) & (ends > start)).tolist()
    if not found:
        raise InputError(
            f"The part {part!r} is not in the prompt of {len(tokens)} tokens; give a text of it or a range."
        )
    return found


def _effects(subject: Subject, asked: Asked, sets: Sequence[Sequence[tuple[int, int]]], share: float) -> np.ndarray:
    """Return the change of the target's score under each set of turned heads."""
    tokens, readout, keys = asked
    scores = score_edits(subject, tokens, readout, [(), *(emphasis(heads, keys, share) for heads in sets)])[:, 0]
    changes: np.ndarray = scores[1:] - scores[0]
    return changes


def _told(joint: np.ndarray, order: Sequence[tuple[int, int]], count: int, held: bool) -> Evidence:
    mean = joint.mean(0)
    named = ", ".join(f"{layer}.{head}" for layer, head in order[:8])
    return Evidence(
        "the chosen heads together",
        f"On {count} prompts {'held out' if held else 'learned from'}, turning the {len(order)} best heads ({named}) "
        f"moves the target by {mean[0]:+.3g}, as many random heads by {mean[1]:+.3g}, all heads by {mean[2]:+.3g}.",
        {"chosen": float(mean[0]), "random": float(mean[1]), "all": float(mean[2])},
        ok=bool(mean[0] > mean[1]) if held else None,
    )
