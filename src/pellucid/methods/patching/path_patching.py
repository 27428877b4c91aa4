"""Path patching: let one part see the clean output of another, while everything else sees the corrupted run."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.pairs import Pair
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.cone import score_edits
from pellucid.engine.paths import Receiver, Runs, Sender, received, receiver_of, senders_to
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit
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
) -> Scores:  # fmt: skip
    """Score each sender by the change of the target when its clean output reaches the receiver and nothing else.

    R[l, s] = f(corrupt, where the receiver's input holds the clean output of sender s) - f(corrupt); positive means
    that the path carries what makes the clean answer. A "direct" path runs through the residual stream alone; "mlps"
    lets feed-forward layers on the way follow, with heads frozen (as in the paper); "all" lets everything below the
    receiver follow. Senders that the receiver does not read are 0. Exact. Swap the prompts for the paper's direction
    (Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969).

    Args:
        subject: the model, from `pellucid.load`; one stack, pre-norm.
        clean: the prompt whose values are sent, or a `Pair` of both prompts, position by position.
        corrupt: the prompt that is patched; as many tokens as `clean`.
        target: what to explain; None means what the model predicts on `clean`.
        contrast: the alternative to compare with.
        receiver: "logits", "blocks.3.mlp", "blocks.3.attn.1", or one input of a head: "blocks.3.attn.1.q" (k, v).
        through: what may carry the change between sender and receiver.

    Returns:
        Scores [layer, part] with the heads and the feed-forward layer as parts; the embedding is in the evidence.

    Raises:
        InputError: prompts of different length, or a receiver that is not there.
        CapabilityError: a post-norm or encoder-decoder model.
    """
    pair = clean if isinstance(clean, Pair) else Pair(clean, corrupt)
    good, bad = subject.encode(pair.clean), subject.encode(pair.corrupt)
    if len(good) != len(bad) or pair.alignment is not None:
        raise InputError(
            f"Paths go position by position, but clean has {len(good)} tokens and corrupt {len(bad)}, or a Pair aligns "
            "them otherwise; rephrase one so that tokens line up."
        )
    end = receiver_of(subject, receiver)
    readout = resolve(subject, good, target, contrast)
    runs, senders = Runs(subject, good, bad), senders_to(subject, end)
    same = [i for i, (a, b) in enumerate(zip(good.ids, bad.ids, strict=True)) if a != b]
    start = min(same, default=0) if subject.kind == "decoder" else 0  # left of it nothing differs
    streams = [runs.arriving(sender, end, through) for sender in senders]
    streams.append(runs.good[runs.stream(end)])
    edits = [_seen(runs, end, value, start) for value in _values(runs, end, streams)]
    scores = score_edits(subject, bad, readout, [(), *edits]).sum(1)
    effects = scores[1:] - scores[0]
    heads = subject.need_layout().stacks[""].heads.query
    return Scores(
        title=f"Path patching into {receiver}" + ("" if through == "direct" else f", through {through}"),
        values=_grid(senders, effects, runs.depth, heads),
        axes=("layer", "part"),
        labels={
            "layer": tuple(str(i) for i in range(runs.depth)),
            "part": (*(f"head {i}" for i in range(heads)), "mlp"),
        },
        unit=readout.unit,
        sign="positive restores the clean answer",
        tokens=bad,
        target=readout.description,
    ).with_evidence(_together(float(scores[0]), effects, receiver))


def _values(runs: Runs, end: Receiver, streams: list[torch.Tensor]) -> list[torch.Tensor]:
    return streams if end.layer == runs.depth else received(runs, end, streams)


def _seen(runs: Runs, end: Receiver, value: torch.Tensor, start: int) -> tuple[Edit, ...]:
    """Return the edit that puts in what the receiver makes of the stream that reaches it."""
    places = list(range(start, len(value)))
    if end.layer == runs.depth:
        return (Edit(str(Site("", end.layer - 1, "resid_post")), "set", value[start:], {"position": places}),)
    if end.head < 0:
        return (Edit(str(Site("", end.layer, "mlp.out")), "set", value[start:], {"position": places}),)
    where = {"position": places, "head": end.head}
    return (Edit(str(Site("", end.layer, "attn.z")), "set", value[start:, None], where),)


def _grid(senders: list[Sender], effects: np.ndarray, depth: int, heads: int) -> np.ndarray:
    grid = np.zeros((depth, heads + 1))
    for (layer, head), effect in zip(senders[1:], effects[1:-1], strict=True):
        grid[layer, head] = effect  # head -1 is the feed-forward layer, which stands last
    return grid


def _together(corrupt: float, effects: np.ndarray, receiver: str) -> Evidence:
    """Compare the sum of single paths with all of them at once: the clean stream at the receiver."""
    return Evidence(
        "all paths together",
        f"The clean input of {receiver} as a whole moves the target by {effects[-1]:+.3g} from {corrupt:.3g}; single "
        f"paths sum to {effects[:-1].sum():+.3g}, of which the embedding {effects[0]:+.3g}.",
        {"corrupt": corrupt, "together": float(effects[-1]), "sum": float(effects[:-1].sum()),
         "embed": float(effects[0])},
    )  # fmt: skip
