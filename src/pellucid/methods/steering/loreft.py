"""LoReFT: learn to rewrite a few directions of the residual stream so that prompts get the wanted answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.answers import Answer, answer_loss, answers_of
from pellucid.engine.directions import held_out
from pellucid.engine.gradients import frozen
from pellucid.engine.planning import check_cancelled, report
from pellucid.models.edits import Context, Edit, EditFunction
from pellucid.models.subject import Subject


@method(
    rows=("N-ST4",),
    paper="arXiv:2404.03592",
    takes="labels",
    produces="learned",
    needs=("gradients",),
    cost="steps*prompts*(F+B)",
)
def loreft(
    subject: Subject, prompts: Sequence[Any], answers: Sequence[Any], *, rank: Positive = 4,
    layers: Sequence[int] | None = None, positions: Sequence[int] = (-1,), steps: Positive = 60, batch: Positive = 32,
    learning_rate: PositiveFloat = 0.02, weight_decay: NonNegativeFloat = 0.0, test_share: Fraction = 0.25,
    seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn a low-rank rewriting of the stream that makes prompts be answered as wanted.

    h <- h + R'(W h + b - R h) at a few positions of the prompt, R [rank, dimension] with orthonormal rows: inside the
    span of R the value becomes W h + b, outside it stays. R, W and b of all layers learn together to raise
    log p(answer | prompt), the model's weights frozen (Wu et al. 2024, arXiv:2404.03592). Starts from W = R, b = 0,
    which changes nothing. A local optimum; the evidence compares prompts held out before and after. `Steering` applies
    it.

    Args:
        subject: a causal language model.
        prompts: texts, chats or token ids.
        answers: the wanted continuation of each, text (with its leading space) or token ids.
        rank: rows of R.
        layers: blocks whose output is rewritten; None takes the middle one.
        positions: of the prompt, negative from its end.
        steps: of Adam, with a linear decay.
        batch: prompts per step, drawn at random; all of them where there are no more.
        learning_rate: at the first step.
        weight_decay: of W, b and R.
        test_share: share of the prompts that only test.
        seed: of start, split and batches.

    Returns:
        Learned with `rotations` R and `sources` W [layer, rank, dimension] and `biases` [layer, rank].

    Raises:
        CapabilityError: a model that is no causal language model.
        InputError: not one answer per prompt, or a loss that became NaN; the model is as before.
    """
    if subject.head != "causal-lm" or subject.kind != "decoder":
        raise CapabilityError(
            f"loreft learns from continuations, but {subject.name} is a {subject.kind} with head {subject.head}; use a "
            "causal language model."
        )
    data = answers_of(subject, prompts, answers)
    held = held_out(np.zeros(len(data), dtype=int), test_share, seed)
    learned, tested = ([one for one, h in zip(data, held, strict=True) if h == flag] for flag in (False, True))
    chosen = [subject.layers // 2] if layers is None else [int(at) % subject.layers for at in layers]
    parts = _start(subject, len(chosen), rank, seed)
    rng = np.random.default_rng(seed)
    losses = _train(subject, learned, parts, chosen, positions, (steps, batch), (learning_rate, weight_decay), rng)
    found = [part.detach() for part in _used(parts)]
    edits = _edits(chosen, parts, positions)
    judged = tested or learned
    with torch.no_grad():
        before, after = (float(answer_loss(subject, judged, own)) for own in ((), edits))
    return Learned(
        title="LoReFT",
        tensors=dict(zip(("rotations", "sources", "biases"), (one.cpu().numpy() for one in found), strict=True)),
        apply="low_rank",
        site="resid_post",
        settings={"layers": chosen, "at": [int(p) for p in positions], "rank": rank, "steps": steps},
        evidence=(_told(before, after, len(judged), bool(tested), losses),),
    )


def _train(
    subject: Subject, data: Sequence[Answer], parts: Sequence[torch.Tensor], layers: Sequence[int],
    positions: Sequence[int], sizes: tuple[int, int], rates: tuple[float, float], rng: np.random.Generator,
) -> list[float]:  # fmt: skip
    """Change the parts in place and return the loss of each step."""
    optimiser = torch.optim.AdamW(parts, lr=rates[0], weight_decay=rates[1])
    (steps, batch), losses = sizes, list[float]()
    for step in range(steps):
        check_cancelled()
        few = len(data) > batch
        some = [data[int(i)] for i in rng.choice(len(data), batch, replace=False)] if few else data
        optimiser.param_groups[0]["lr"] = rates[0] * (1 - step / steps)
        optimiser.zero_grad()
        with torch.enable_grad(), frozen(subject.model):
            loss = answer_loss(subject, some, _edits(layers, parts, positions), grad=True)
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise InputError(
                    f"The loss became NaN or infinite at step {step + 1}; lower learning_rate (now {rates[0]:g}), the "
                    "model is unchanged."
                )
            loss.backward()
        subject.count(backwards=len(some))
        optimiser.step()
        report(step + 1, steps)
    return losses


def _start(subject: Subject, layers: int, rank: int, seed: int) -> list[torch.Tensor]:
    """Return R (not yet orthonormal), W - R and b as parameters."""
    width = int(subject.model.config.hidden_size)
    if rank > width:
        raise InputError(f"loreft was asked for rank {rank} in a stream of {width} components; use at most that.")
    dtype = torch.float64 if subject.dtype == "float64" else torch.float32
    drawn = torch.randn(layers, rank, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    parts = [drawn, torch.zeros_like(drawn), torch.zeros(layers, rank, dtype=dtype)]
    return [part.to(subject.input_device).requires_grad_() for part in parts]


def _used(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return R with orthonormal rows, W and b."""
    rows = torch.linalg.qr(parts[0].mT).Q.mT
    return rows, rows + parts[1], parts[2]


def _edits(layers: Sequence[int], parts: Sequence[torch.Tensor], positions: Sequence[int]) -> tuple[Edit, ...]:
    rotations, sources, biases = _used(parts)

    def rewrite(at: int) -> EditFunction:
        def act(h: torch.Tensor, context: Context) -> torch.Tensor:
            r, w, b = (one[at].to(h) for one in (rotations, sources, biases))
            return h + (h @ w.mT + b - h @ r.mT) @ r

        return act

    where = {"position": tuple(int(p) for p in positions)}
    return tuple(Edit(f"blocks.{layer}.resid_post", rewrite(i), where=where) for i, layer in enumerate(layers))


def _told(before: float, after: float, count: int, held: bool, losses: Sequence[float]) -> Evidence:
    return Evidence(
        "loss of the answers",
        f"On {count} prompts {'held out' if held else 'learned from'}, the answers' loss goes from {before:.3g} to "
        f"{after:.3g} nats per token.",
        {"before": before, "after": after},
        {"x": tuple(float(i + 1) for i in range(len(losses))), "training loss": tuple(losses)},
        ok=after < before if held else None,
    )
