"""Head gates: the attention heads that remain when each has to pay for being open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat, PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.gradients import frozen
from pellucid.engine.hard_concrete import open_chance, sampled, settled
from pellucid.engine.planning import check_cancelled
from pellucid.engine.question import Question
from pellucid.engine.reading import read
from pellucid.engine.several import ask_several
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit
from pellucid.models.subject import Subject


@method(
    rows=("ATT-18",),
    paper="arXiv:1905.09418",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("gradients", "activations"),
    cost="(steps+4)*F+steps*B",
)
def head_gates(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    others: Sequence[Any] = (), other_targets: Sequence[Any] | None = None, penalty: NonNegativeFloat = 0.05,
    steps: Positive = 30, rate: PositiveFloat = 0.4, site: SiteName = "attn.z", seed: Count = 0,
) -> Scores:  # fmt: skip
    """Learn a gate on every attention head that keeps the target high with as few open heads as possible.

    Minimises E over prompts and gates g of -f(heads times g) + penalty * expected number of open gates; gates follow
    the hard concrete distribution, so they reach 0 and 1 exactly, and the model's weights stay as they are. Returns the
    gates without noise: 1 is needed, 0 can go. An approximation that depends on the penalty; the evidence compares the
    target with all heads and with the gates (Voita et al. 2019, arXiv:1905.09418; Louizos et al. 2018,
    arXiv:1712.01312).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to keep; None means what the model predicts. Log-probabilities unless the target says otherwise.
        contrast: the alternative to compare with.
        others: further prompts to learn from; each costs as much as the first.
        other_targets: a target for each of the others; None takes `target`.
        penalty: price of an open head, in units of the target.
        steps: passes over the prompts.
        rate: learning rate of Adam.
        site: where heads are gated: "attn.z", "cross_attn.z" or a name such as "decoder.blocks.*.attn.z".
        seed: of the noise of the gates.

    Returns:
        Scores [layer, head], from 0 to 1.
    """
    single = target if isinstance(target, Target) else Target(target)
    if single.measure == "auto" and not callable(single.what) and subject.head != "none":
        single = Target(single.what, single.contrast, "log_prob", single.kind, single.each, single.length)
    asked = ask_several(subject, prompt, others, target=single, contrast=contrast, other_targets=other_targets)
    names = expand(subject, part_name(subject, site))
    values = capture(subject, asked[0].tokens, names)
    heads = max(value.shape[1] for value in values.values())
    locations = torch.full((len(names), heads), 2.0, requires_grad=True)
    optimiser = torch.optim.Adam([locations], lr=rate)
    noise = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        check_cancelled()
        optimiser.zero_grad()
        (penalty * open_chance(locations).sum()).backward()
        for question in asked:
            _step_back(question, names, sampled(locations, noise), len(asked))
        optimiser.step()
    gates = settled(locations.detach())
    for row, value in enumerate(values.values()):
        gates[row, value.shape[1] :] = 0
    result = Scores(
        title=f"Head gates over {len(asked)} prompt{'s' if len(asked) > 1 else ''}",
        values=gates.double().numpy(),
        axes=("layer", "head"),
        unit="gate",
        sign="1 is needed for the target, 0 can be removed",
        tokens=asked[0].tokens,
        target=asked[0].readout.description,
    )
    return result.with_evidence(_kept(asked, names, gates))


def _gated(names: Sequence[str], gates: torch.Tensor) -> tuple[Edit, ...]:
    """Return the edits that multiply every head by its gate."""

    def by(row: torch.Tensor) -> Any:
        def gate(value: torch.Tensor, context: Context) -> torch.Tensor:
            return value * row[: value.shape[1], None].to(value)

        return gate

    return tuple(Edit(name, by(gates[i])) for i, name in enumerate(names))


def _step_back(question: Question, names: Sequence[str], gates: torch.Tensor, count: int) -> None:
    """Add the gradient of one prompt's part of the loss."""
    subject = question.subject
    with subject.lock, frozen(subject.model), torch.enable_grad():
        edits = [_gated(names, gates)]
        values, _ = read(subject, question.tokens, question.readout, [whole(question.tokens)], edits=edits, grad=True)
        (-values.sum() / count).backward()
    subject.count(backwards=1)


@torch.no_grad()
def _kept(asked: Sequence[Question], names: Sequence[str], gates: torch.Tensor) -> Evidence:
    ends = torch.zeros(2, dtype=torch.float64)
    for question in asked:
        edits = [(), _gated(names, gates)]
        rows = [whole(question.tokens)] * 2
        values, _ = read(question.subject, question.tokens, question.readout, rows, edits=edits)
        ends += values.sum(1).double().cpu() / len(asked)
    before, after = ends.tolist()
    left = int((gates > 0).sum())
    return Evidence(
        "with the gates",
        f"{left} of {gates.numel()} heads stay open; the target is {after:.3g} with the gates and {before:.3g} with "
        "all heads.",
        {"open": float(left), "gated": after, "all": before},
    )
