"""Path patching: let one part see the clean output of another, while everything else sees the corrupted run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.pairs import Pair
from pellucid.core.params import Count, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.coalitions import standard_error
from pellucid.engine.cone import score_edits
from pellucid.engine.over_pairs import AskedPair, against_null, as_far, paired, several_pairs
from pellucid.engine.paths import Receiver, Runs, Sender, receiver_of, senders_to
from pellucid.engine.readout import Readout
from pellucid.engine.receivers import receiver_values, seen_by
from pellucid.engine.targets import resolve
from pellucid.models.subject import Subject


@method(
    rows=("MEC-2",),
    paper="arXiv:2211.00593",
    takes="pair",
    produces="scores",
    axes=("layer", "part"),
    needs=("activations", "weights"),
    cost="(2*layers*(heads+1)+8)*F",
)
def path_patching(
    subject: Subject, clean: PromptLike | Pair, *, corrupt: PromptLike | None = None, target: TargetLike = None,
    contrast: int | str | None = None, receiver: str = "logits", through: Literal["direct", "mlps", "all"] = "direct",
    others: Sequence[Pair] = (), other_targets: Sequence[Any] | None = None,
    other_contrasts: Sequence[Any] | None = None, seed: Count = 0,
) -> Scores:  # fmt: skip
    """Score each sender by the change of the target when its clean output reaches the receiver and nothing else.

    R[l, s] = f(corrupt, where the receiver's input holds the clean output of sender s) - f(corrupt); positive means
    that the path carries what makes the clean answer. A "direct" path runs through the residual stream alone; "mlps"
    lets feed-forward layers on the way follow, with heads frozen (as in the paper); "all" lets everything below the
    receiver follow. Senders that the receiver does not read are 0. Exact. Swap the prompts for the paper's direction.
    Over several pairs it is the mean, with paired standard errors and a null: the receiver's input moved as far in a
    random direction at each position (Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023,
    arXiv:2304.05969).

    Args:
        subject: the model, from `pellucid.load`; one stack, pre-norm.
        clean: the prompt whose values are sent, or a `Pair` of both prompts, position by position.
        corrupt: the prompt that is patched; as many tokens as `clean`.
        target: what to explain; None means what the model predicts on `clean`.
        contrast: the alternative to compare with.
        receiver: "logits", "blocks.3.mlp", "blocks.3.attn.1", or one input of a head: "blocks.3.attn.1.q" (k, v).
        through: what may carry the change between sender and receiver.
        others: further pairs to average over.
        other_targets: a target for each of the others; None takes `target`.
        other_contrasts: an alternative for each of the others; None takes `contrast`.
        seed: of the null.

    Returns:
        Scores [layer, part] with the heads and the feed-forward layer as parts; the embedding is in the evidence.

    Raises:
        InputError: prompts of different length, or a receiver that is not there.
        CapabilityError: a post-norm or encoder-decoder model.
    """
    pair, end = clean if isinstance(clean, Pair) else Pair(clean, corrupt), receiver_of(subject, receiver)
    asked = several_pairs(AskedPair(pair, target, contrast), others, other_targets, other_contrasts)
    generator = torch.Generator().manual_seed(seed) if others else None
    runs = [_patched(subject, one, end, through, generator) for one in asked]
    first, senders = runs[0], senders_to(subject, end)
    heads, depth = subject.need_layout().stacks[""].heads.query, subject.layers
    grids, nulls = (np.stack([_grid(senders, one.effects[i], depth, heads) for one in runs]) for i in (0, -1))
    labels = (*(f"head {i}" for i in range(heads)), "mlp")
    result = Scores(
        title=f"Path patching into {receiver}" + ("" if through == "direct" else f", through {through}"),
        values=grids.mean(0),
        axes=("layer", "part"),
        labels={"layer": tuple(str(i) for i in range(depth)), "part": labels},
        unit=first.readout.unit,
        sign="positive restores the clean answer",
        tokens=first.tokens,
        target=first.readout.description,
        std_error=standard_error(grids) if others else None,
    ).with_evidence(_together([one.corrupt for one in runs], [one.effects[0] for one in runs], receiver))
    return result.with_evidence(paired(grids), against_null(grids, nulls)) if others else result


@dataclass(frozen=True, eq=False)
class _Patched:
    """One pair: effects of all senders and of all at once [1 or 2 with the null, senders + 1], and what was read."""

    effects: np.ndarray
    corrupt: float
    readout: Readout
    tokens: Tokens


def _patched(
    subject: Subject, asked: AskedPair, end: Receiver, through: Literal["direct", "mlps", "all"],
    generator: torch.Generator | None,
) -> _Patched:  # fmt: skip
    """Send every sender's clean output of one pair, and with a generator as long a random change."""
    good, bad = subject.encode(asked.pair.clean), subject.encode(asked.pair.corrupt)
    if len(good) != len(bad) or asked.pair.alignment is not None:
        raise InputError(
            f"Paths go position by position, but clean has {len(good)} tokens and corrupt {len(bad)}, or a Pair aligns "
            "them otherwise; rephrase one so that tokens line up."
        )
    readout = resolve(subject, good, asked.target, asked.contrast)
    runs, senders = Runs(subject, good, bad), senders_to(subject, end)
    differ = [i for i, (a, b) in enumerate(zip(good.ids, bad.ids, strict=True)) if a != b]
    start = min(differ, default=0) if subject.kind == "decoder" else 0  # left of it nothing differs
    streams = [runs.arriving(sender, end, through) for sender in senders]
    streams.append(runs.good[runs.stream(end)])
    if generator is not None:
        still = runs.corrupt[runs.stream(end)]
        streams += [as_far(still, stream, [1], generator) for stream in streams]
    edits = [seen_by(runs, end, value, start) for value in receiver_values(runs, end, streams)]
    scores = score_edits(subject, bad, readout, [(), *edits]).sum(1)
    effects = (scores[1:] - scores[0]).reshape(-1, len(senders) + 1)
    return _Patched(effects, float(scores[0]), readout, bad)


def _grid(senders: list[Sender], effects: np.ndarray, depth: int, heads: int) -> np.ndarray:
    grid = np.zeros((depth, heads + 1))
    for (layer, head), effect in zip(senders[1:], effects[1:-1], strict=True):
        grid[layer, head] = effect  # head -1 is the feed-forward layer, which stands last
    return grid


def _together(corrupt: Sequence[float], effects: Sequence[np.ndarray], receiver: str) -> Evidence:
    """Compare the sum of single paths with all of them at once: the clean stream at the receiver. Means over pairs."""
    base, mean = float(np.mean(corrupt)), np.mean(effects, 0)
    return Evidence(
        "all paths together",
        f"The clean input of {receiver} as a whole moves the target by {mean[-1]:+.3g} from {base:.3g}; single paths "
        f"sum to {mean[:-1].sum():+.3g}, of which the embedding {mean[0]:+.3g}.",
        {"corrupt": base, "together": float(mean[-1]), "sum": float(mean[:-1].sum()), "embed": float(mean[0])},
    )
