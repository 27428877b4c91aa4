"""The same question to several prompts, for what is a mean over data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pellucid.core.errors import InputError
from pellucid.engine.question import Question, ask

if TYPE_CHECKING:
    from pellucid.core.params import PromptLike, TargetLike
    from pellucid.models.subject import Subject


def ask_several(
    subject: Subject, prompt: PromptLike, others: Sequence[Any], *, target: TargetLike = None,
    contrast: int | str | None = None, other_targets: Sequence[Any] | None = None,
) -> list[Question]:  # fmt: skip
    """Ask about a prompt and further ones, the prompt first.

    Args:
        subject: the model.
        prompt: text, chat or token ids.
        others: further prompts.
        target: of the prompt, and of the others where they have none of their own; None means what the model predicts
            for each.
        contrast: the alternative to compare with, for all.
        other_targets: a target for each of the others.

    Raises:
        InputError: not as many targets as further prompts, or an empty prompt.
        TargetError: a target the model does not have.
    """
    if other_targets is not None and len(other_targets) != len(others):
        raise InputError(
            f"There are {len(other_targets)} other_targets for {len(others)} other prompts; give one each, or none."
        )
    targets = [target] * len(others) if other_targets is None else list(other_targets)
    asked = [(prompt, target), *zip(others, targets, strict=True)]
    return [ask(subject, one, target=own, contrast=contrast) for one, own in asked]
