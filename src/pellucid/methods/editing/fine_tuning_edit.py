"""Fine-tuning on a fact: gradient steps on feed-forward matrices, free or within a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import EditError
from pellucid.core.facts import Fact
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine.backward import frozen
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.edit_requests import Written
from pellucid.engine.planning import check_cancelled
from pellucid.methods.editing._shared import ask, finished
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.hooks import acting
from pellucid.models.subject import Subject


@method(
    rows=("EDT-5",),
    paper="arXiv:2012.00363",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients"),
    cost="prompts*(steps*(F+B)+9*layers*F)+32*layers*F+300*F",
)
def fine_tuning_edit(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layers: Sequence[int] | None = None,
    count: Positive = 1, bound: PositiveFloat | None = None, prefixes: Sequence[str] = (), steps: Positive = 100,
    rate: PositiveFloat = 0.1, enough: NonNegativeFloat = 0.01, neutral: Sequence[Any] | None = None, seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Change feed-forward matrices by gradient steps on the facts' targets: the baseline that editors must beat.

    Adam on the mean negative log-likelihood of the targets' tokens, all facts in one batch, until it is below `enough`.
    With a `bound`, no weight moves farther than that (FT-L; Zhu et al. 2020, arXiv:2012.00363); without, it is plain
    fine-tuning (FT). Exact: gradients by automatic differentiation.

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them.
        layers: where; None means the `count` neighbouring layers where causal tracing finds most on this model.
        count: how many layers, where tracing chooses them.
        bound: how far any single weight may move, in root-mean-square weights of its matrix; None means any distance.
        prefixes: texts before the prompt that are trained on as well.
        steps: of Adam.
        rate: of Adam, in root-mean-square weights of the matrix. The papers give absolute rates (5e-4), which suit one
            size of weights.
        enough: the loss at which to stop.
        neutral: texts on which side effects are measured; None means text that the model writes itself.
        seed: of the tracing's noise and of own texts.

    Returns:
        WeightEdit with a whole matrix per layer.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError: a fact whose subject is not in its prompt.
        EditError: a tied matrix, or a loss that is no number; the model is unchanged.
    """
    asked = ask(subject, facts, layers, "subject" if layers is not None else "traced", count, prefixes, seed)
    rows = [row for one in asked.wordings for row in one.rows]
    wide = torch.float64 if subject.dtype == "float64" else torch.float32
    changes = [torch.zeros_like(at.weight, dtype=wide).requires_grad_() for at in asked.layers]
    sizes = [float(at.weight.detach().to(wide).square().mean().sqrt()) for at in asked.layers]
    work = {at.module: _moved(at, change) for at, change in zip(asked.layers, changes, strict=True)}
    with subject.lock, frozen(subject.model), acting(work), torch.enable_grad():
        losses = _steps(subject, rows, changes, sizes, bound, steps, rate, enough)
    deltas = {at.name: change.detach().cpu().numpy() for at, change in zip(asked.layers, changes, strict=True)}
    edit = WeightEdit(deltas=deltas, weights_hash=subject.weights_hash())
    return finished(
        subject, "FT" if bound is None else "FT-L", asked, edit.with_evidence(_account(losses)), neutral, seed
    )


def _steps(
    subject: Subject, rows: Sequence[Written], changes: list[torch.Tensor], sizes: Sequence[float],
    bound: float | None, steps: int, rate: float, enough: float,
) -> list[float]:  # fmt: skip
    """Change the matrices step by step and return the losses."""
    groups = [{"params": [change], "lr": rate * size} for change, size in zip(changes, sizes, strict=True)]
    optimiser = torch.optim.Adam(groups)
    losses: list[float] = []
    for step in range(steps):
        check_cancelled()
        loss = _loss(subject, rows)
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise EditError(
                f"The loss of fine-tuning became {losses[-1]} at step {step}, and nothing was changed; load the model "
                "in float32, or take a smaller rate."
            )
        if losses[-1] < enough:
            break
        optimiser.zero_grad()
        loss.backward()
        subject.count(backwards=len(rows))
        optimiser.step()
        if bound is not None:
            for change, size in zip(changes, sizes, strict=True):
                change.data.clamp_(-bound * size, bound * size)
    return losses


def _account(losses: Sequence[float]) -> Evidence:
    summary = f"The loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps."
    curve = {"x": tuple(map(float, range(len(losses)))), "loss": tuple(losses)}
    return Evidence("fine-tuning", summary, {"first": losses[0], "last": losses[-1]}, curve)


def _moved(at: DownProjection, change: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the work of a feed-forward matrix with a change of it."""
    own: Any = at.module.forward

    def work(keys: torch.Tensor) -> torch.Tensor:
        plain: torch.Tensor = own(keys)
        return plain + keys @ (change if at.transposed else change.T).to(keys)

    return work


def _loss(subject: Subject, rows: Sequence[Written]) -> torch.Tensor:
    """Return the mean over rows of the mean negative log-likelihood of a row's target."""
    most = max(len(row.places) for row in rows)
    places = torch.tensor([(*row.places, *[0] * (most - len(row.places))) for row in rows])
    logits = forward(subject, [Row(row.ids) for row in rows], grad=True, wanted=places).logits
    losses = []
    for number, row in enumerate(rows):
        target = torch.tensor(row.target, device=logits.device)
        own = logits[number, : len(row.target)]
        own = own if own.dtype == torch.float64 else own.float()
        losses.append(-own.log_softmax(-1).gather(-1, target[:, None]).mean())
    return torch.stack(losses).mean()
