"""ALTI-Logit: what every block's transformed vectors add to the logit, traced to the input by ALTI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pellucid.core.errors import CapabilityError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.direct_path import DirectPath, direct_path, linear_readout
from pellucid.engine.frozen_norms import FrozenNorm
from pellucid.engine.question import ask, per_unit
from pellucid.engine.rollout import rolled
from pellucid.engine.transformed import AttentionBlock, attention_blocks, contributions
from pellucid.methods.vectors._shared import books
from pellucid.models.subject import Subject


@method(
    rows=("FAV-7",),
    paper="arXiv:2305.12535",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention", "weights", "gradients"),
    cost="3*F+targets*B",
)
def alti_logit(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", feed_forward: Literal["mixed", "apart"] = "mixed",
) -> Scores:  # fmt: skip
    """Share a logit among the units by what each block's vectors add to it, mixed by the blocks below.

    R_k = x_k^0 u + sum_l [sum_j T^l(x_j) u M_jk^(l-1) + FF^l u M_ik^l], u the direction of the logit at the position i
    that is read (behind the last norms, taken at their divisors), T^l(x_j) the vector that j adds in block l, and
    M^l = C^l ... C^1 ALTI's contributions. Positive raises the target. Conserves: units, other tokens and constants
    (biases of output projections and norms, in the evidence) sum to the logit or difference of logits, and so do
    feed-forward layers where they are kept "apart". How they mix is an approximation (Ferrando et al. 2023,
    arXiv:2305.12535). The paper takes pre-norm decoders; the direction goes back through the norms of post-norm
    blocks, and the paper's own sum leaves the feed-forward layers out.

    Args:
        subject: the model, from `pellucid.load`, of one stack of blocks.
        prompt: text, chat or token ids.
        target: what to explain, a token or class; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        feed_forward: "mixed" like the vector they read, or kept "apart" from the tokens.

    Returns:
        Scores [unit].

    Raises:
        CapabilityError: an encoder-decoder.
        TargetError: a target that is no logit.
    """
    if subject.kind == "encoder-decoder":
        raise CapabilityError(
            f"alti_logit follows one stack of blocks, but {subject.name} has an encoder and a decoder; use decompx."
        )
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    readout = linear_readout(question.readout, "alti_logit")
    blocks = attention_blocks(question.subject, question.tokens)
    path = direct_path(question.subject, question.tokens, readout)
    updates = _updates(blocks, path)
    mixing = rolled([contributions(block) for block in blocks])
    below = [torch.eye(len(mixing[0])).to(mixing[0]), *mixing[:-1]]
    scores, apart = updates.start.clone(), torch.zeros_like(path.values)
    for layer, block in enumerate(blocks):
        scores += updates.attention[layer] @ below[layer]
        if feed_forward == "mixed":
            scores += updates.feed_forward[layer] @ (below if block.parallel else mixing)[layer]
        else:
            apart += updates.feed_forward[layer].sum(-1)
    by_position = np.ascontiguousarray(_numpy(scores).T)
    values = per_unit(by_position, question.units)
    rest = {"constants": _numpy(updates.constants)}
    if feed_forward == "apart":
        rest["feed-forward layers"] = _numpy(apart)
    return question.answer(values, "ALTI-Logit").with_evidence(books(values, by_position, rest, _numpy(path.values)))


def _numpy(value: torch.Tensor) -> np.ndarray:
    return value.double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Updates:
    """What the parts of the model add to the targets: per position [targets, position], and constants [targets]."""

    start: torch.Tensor
    attention: list[torch.Tensor]
    feed_forward: list[torch.Tensor]
    constants: torch.Tensor


def _updates(blocks: list[AttentionBlock], path: DirectPath) -> Updates:
    """Go down the blocks with the directions of the targets."""
    directions, constants = path.directions, path.constants.clone()
    attention: list[torch.Tensor] = []
    feed_forward: list[torch.Tensor] = []

    def below(norm: FrozenNorm | None, directions: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return directions
        constants.add_((directions * norm.bias).sum((1, 2)))
        return norm.back(directions)

    for block in reversed(blocks):
        directions = below(block.last_norm, directions)
        feed_forward.append((directions * block.feed_forward).sum(-1))
        directions = below(block.middle_norm, directions)
        out = below(block.sub_norm, directions * block.scale)
        constants.add_((out * block.bias).sum((1, 2)))
        # The vector of a key against the directions of all queries that look at it.
        looked = torch.einsum("hqk,tqd->thkd", block.pattern, out)
        attention.append(torch.einsum("thkd,khd->tk", looked, block.values))
    return Updates((directions * blocks[0].before).sum(-1), attention[::-1], feed_forward[::-1], constants)
