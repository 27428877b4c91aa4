"""Prompts with the answers they should get, and the loss of the answers under edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.errors import InputError
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Answer:
    """The ids of a prompt and of the answer behind it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def answers_of(subject: Subject, prompts: Sequence[Any], answers: Sequence[Any]) -> list[Answer]:
    """Return prompts and answers (text or ids) as ids; raise `InputError` where they do not go together."""
    if isinstance(prompts, str) or len(prompts) != len(answers) or not len(prompts):
        raise InputError(f"{len(answers)} answers were given for {len(prompts)} prompts; give one for each.")
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        text = isinstance(answer, str)
        ids = subject.tokenizer(answer, add_special_tokens=False)["input_ids"] if text else list(answer)
        if not ids:
            raise InputError(f"The answer {answer!r} has no tokens; give at least one.")
        found.append(Answer(tuple(subject.encode(prompt).ids), tuple(int(i) for i in ids)))
    return found


def answer_loss(
    subject: Subject, data: Sequence[Answer], edits: tuple[Edit, ...], *, grad: bool = False
) -> torch.Tensor:
    """Return the mean over prompts of -log p(answer | prompt) per token of the answer, in nats, in one batch.

    With `grad` it can be differentiated by whatever the edits hold. Exact.
    """
    rows = [Row((*one.prompt, *one.answer), edits=edits, prompt_length=len(one.prompt)) for one in data]
    most = max(len(one.answer) for one in data)
    places = [[len(one.prompt) - 1 + min(k, len(one.answer) - 1) for k in range(most)] for one in data]
    logits = forward(subject, rows, grad=grad, wanted=torch.tensor(places)).logits
    losses = []
    for i, one in enumerate(data):
        said = logits[i, : len(one.answer)]
        said = (said if said.dtype == torch.float64 else said.float()).log_softmax(-1)
        losses.append(-said.gather(-1, torch.tensor(one.answer, device=said.device)[:, None]).mean())
    return torch.stack(losses).mean()
