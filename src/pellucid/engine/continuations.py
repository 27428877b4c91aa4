"""What a causal language model says behind many prompts: given texts forced upon it, and its own until it stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.facts import continuation
from pellucid.core.tokens import Tokens
from pellucid.engine.generation import end_ids
from pellucid.engine.planning import in_batches
from pellucid.models import inputs
from pellucid.models.batch import Row
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Forced:
    """A text behind a prompt, token by token: its log-probabilities in nats, and which tokens are the likeliest."""

    log_probs: np.ndarray
    likeliest: np.ndarray

    @property
    def probability(self) -> float:
        """Return the geometric mean of the tokens' probabilities, so that long texts are no less probable."""
        return float(np.exp(self.log_probs.mean()))

    @property
    def exact(self) -> float:
        """Return 1 where every token is the likeliest one, so that greedy decoding would say the text, else 0."""
        return float(self.likeliest.all())


def need_speaker(subject: Subject, asked: str) -> None:
    """Raise `CapabilityError` where the subject is no causal language model with a tokenizer."""
    if (subject.kind, subject.head) != ("decoder", "causal-lm") or subject.tokenizer is None:
        raise CapabilityError(
            f"{asked} needs a causal language model with a tokenizer, but {subject.name} is a {subject.kind} with "
            f"head {subject.head}{'' if subject.tokenizer is not None else ' and no tokenizer'}; load such a model."
        )


def following_ids(subject: Subject, prompt: str, text: str) -> tuple[Ids, Ids]:
    """Return the ids of a prompt and of a text behind it, with a space between them where there is none.

    Raises:
        InputError: the text is empty, or both are longer than the model takes.
    """
    tokens: Tokens = subject.encode(prompt)
    if not text.strip():
        raise InputError(f"The answer {text!r} behind {prompt!r} is empty; give a text.")
    ids = inputs.target_ids(subject.tokenizer, continuation(prompt, text), prompt_tokens=tokens)
    if subject.max_length is not None and len(tokens) + len(ids) - 1 > subject.max_length:
        raise InputError(
            f"The prompt {prompt[:40]!r} with its answer has {len(tokens) + len(ids)} tokens, more than the "
            f"{subject.max_length} that {subject.name} takes; shorten it."
        )
    return tokens.ids, ids


@torch.no_grad()
def forced(subject: Subject, asked: Sequence[tuple[Ids, Ids]]) -> list[Forced]:
    """Return how the subject, its edits active, takes each (prompt, text behind it); equal ones are run once. Exact."""
    different = list(dict.fromkeys(asked))

    def run(batch: list[tuple[Ids, Ids]]) -> list[Forced]:
        most = max(len(text) for _, text in batch)
        places = [[len(p) - 1 + min(i, len(text) - 1) for i in range(most)] for p, text in batch]
        rows = [Row((*p, *text[:-1]), prompt_length=len(p)) for p, text in batch]
        logits = forward(subject, rows, wanted=torch.tensor(places)).logits
        found = []
        for number, (_, text) in enumerate(batch):
            own, ids = logits[number, : len(text)].double(), torch.tensor(text, device=logits.device)
            log_probs = own.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
            found.append(Forced(log_probs.cpu().numpy(), (own.argmax(-1) == ids).cpu().numpy()))
        return found

    answers = in_batches(different, [len(p) + len(text) for p, text in different], run)
    known = dict(zip(different, answers, strict=True))
    return [known[pair] for pair in asked]


@torch.no_grad()
def spoken(subject: Subject, prompts: Sequence[Ids], length: int, *, top: int = 1, seed: int = 0) -> list[Ids]:
    """Return the subject's own continuation of each prompt, its edits active, until it ends the text by itself.

    At most `length` tokens, fewer where the model's positions run out; the end token is left out. Equal prompts are
    run once. With `top` above 1 each token is drawn among so many likeliest ones by their probabilities, from random
    numbers that depend on the seed and the place in the list of different prompts alone. Every step is a full forward,
    all prompts in batches; exact.
    """
    different, ends = list(dict.fromkeys(prompts)), end_ids(subject)
    found: list[Ids] = [()] * len(different)
    limit = subject.max_length
    draws = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(len(different))]
    waiting = list(range(len(different)))

    def step(batch: list[int]) -> list[torch.Tensor]:
        rows = [Row((*different[i], *found[i]), prompt_length=len(different[i])) for i in batch]
        last = torch.tensor([[len(row.ids) - 1] for row in rows])
        return list(forward(subject, rows, wanted=last).logits[:, 0].double().cpu())

    for _ in range(length):
        waiting = [i for i in waiting if limit is None or len(different[i]) + len(found[i]) < limit]
        if not waiting:
            break
        logits = in_batches(waiting, [len(different[i]) + len(found[i]) for i in waiting], step)
        drawn = {i: _drawn(own, top, draws[i]) for i, own in zip(waiting, logits, strict=True)}
        waiting = [i for i in waiting if drawn[i] not in ends]
        for i in waiting:
            found[i] = (*found[i], drawn[i])
    known = dict(zip(different, found, strict=True))
    return [known[prompt] for prompt in prompts]


def _drawn(logits: torch.Tensor, top: int, generator: torch.Generator) -> int:
    if top == 1:
        return int(logits.argmax())
    best = logits.topk(min(top, len(logits)))
    return int(best.indices[torch.multinomial(best.values.softmax(-1), 1, generator=generator)])


def text_of(subject: Subject, prompt: Ids, ids: Ids) -> str:
    """Return the text of ids as they continue a prompt, whose last tokens keep a leading space from being dropped."""
    decode = subject.tokenizer.decode
    head = decode(list(prompt[-4:]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    both = decode([*prompt[-4:], *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(both[len(head) :] if both.startswith(head) else decode(list(ids), skip_special_tokens=True))
