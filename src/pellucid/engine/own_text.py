"""Text that a model writes by itself: what it knows best, where no corpus is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pellucid.core.errors import CapabilityError
from pellucid.models.batch import evaluating

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

ROWS = 32


@torch.no_grad()
def own_texts(subject: Subject, count: int, length: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Return `count` texts of at most `length` token ids, sampled from the model from the start of a text.

    The same seed gives the same texts, and the global generator of random numbers is left as it was. A text begins with
    the token that the tokenizer begins texts with, or with the end of the one before.

    Raises:
        CapabilityError: the subject does not write text, or has no token to begin with.
    """
    if "generate" not in subject.capabilities:
        raise CapabilityError(f"{subject.name} writes no text of its own ({subject.kind}, {subject.head}); give texts.")
    start = _start(subject)
    limit = subject.max_length
    length = length if limit is None else min(length, limit)
    found: list[tuple[int, ...]] = []
    with subject.lock, evaluating(subject.model), torch.random.fork_rng(devices=_devices(subject)):
        torch.manual_seed(seed)
        while len(found) < count:
            rows = min(ROWS, count - len(found))
            ids = torch.full((rows, 1), start, device=subject.input_device)
            out = subject.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=length - 1,
                eos_token_id=None,
                pad_token_id=subject.pad_id,
            )
            subject.count(forwards=rows * (length - 1))
            found += [tuple(row) for row in out.tolist()]
    return found


def _start(subject: Subject) -> int:
    for owner in (subject.tokenizer, subject.model.config):
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(owner, name, None)
            if isinstance(token, int) and 0 <= token < subject.vocabulary:
                return token
    raise CapabilityError(f"{subject.name} has no token that begins a text, so it cannot write one; give texts.")


def _devices(subject: Subject) -> list[torch.device]:
    return [subject.input_device] if subject.input_device.type == "cuda" else []


def own_prefixes(subject: Subject, count: int, length: int, seed: int = 0) -> tuple[str, ...]:
    """Return texts to stand before a prompt: beginnings that the model writes, each ended by a full stop."""
    texts = own_texts(subject, count, length + 1, seed) if count else []
    found = []
    for ids in texts:
        text = " ".join(subject.tokenizer.decode(list(ids[1:]), skip_special_tokens=True).split())
        found.append(text if text.endswith((".", "!", "?")) else f"{text}.")
    return tuple(dict.fromkeys(found))
