"""Generated answers to changed prompts, and how alike two answers are: what is explained where only text comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, GeneratorError, InputError
from pellucid.core.targets import Target
from pellucid.engine.generation import end_ids
from pellucid.engine.planning import in_batches
from pellucid.engine.question import Question, ask
from pellucid.engine.readout import Readout
from pellucid.engine.scoring import score
from pellucid.engine.targets import resolve
from pellucid.engine.variants import Variant, remove, row, whole
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.core.params import PromptLike, Replacement, TargetLike, Unit
    from pellucid.models.subject import Subject

Ids = tuple[int, ...]
Writer = Callable[[list[str]], list[str]]


@dataclass(frozen=True, eq=False)
class Responses:
    """The game whose value is how alike the answer to some units is to a reference answer: [n, units] -> [n, 1].

    `references` holds the reference, and a contrast whose likeness is subtracted; answers have `length` tokens at most.
    `encoder` is a model without a head that embeds texts; without it answers are compared by the mean of the subject's
    own token embeddings. `writer` answers texts in place of the subject; then answers are text and need an encoder.
    """

    question: Question
    references: tuple[Ids, ...] | tuple[str, ...]
    length: int
    encoder: Subject | None = None
    writer: Writer | None = None

    def score(self, present: np.ndarray, replacement: Replacement) -> np.ndarray:
        """Return the likeness of the answers: cosine in [-1, 1], or the difference of two; 0 for an empty answer."""
        subject, tokens = self.question.subject, self.question.tokens
        variants = [remove(subject, tokens, self.question.units, mask, replacement) for mask in present]
        if self.writer is not None:
            found: Sequence[Ids] | Sequence[str] = written(self.question, self.writer, variants)
        else:
            found = respond(self.question, variants, self.length)
        values = alike(subject, found, self.references[0], self.encoder)
        for other in self.references[1:]:
            values = values - alike(subject, found, other, self.encoder)
        return values[:, None]


def responses(
    subject: Subject,
    prompt: PromptLike,
    unit: Unit,
    *,
    target: TargetLike,
    contrast: int | str | None,
    length: int,
    encoder: Subject | None,
    writer: Writer | None,
) -> Responses:
    """Return the game of answers: compared with the target, or with the answer to the whole prompt where none is given.

    All answers are shortened alike where the whole prompt leaves too few positions.

    Raises:
        CapabilityError: the subject generates no text and there is no writer, or text without an encoder.
        InputError: an own answer that is empty, or a writer with a target that is no text.
    """
    if encoder is not None and (encoder.head != "none" or encoder.tokenizer is None):
        raise CapabilityError(
            f"{encoder.name} has the head {encoder.head}, but answers are embedded by a model without a head and "
            "with a tokenizer; pass a sentence encoder."
        )
    if writer is not None:
        return _of_writer(ask(subject, prompt, unit=unit), target, contrast, length, encoder, writer)
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    if "generate" not in subject.capabilities or question.readout.function is not None:
        raise CapabilityError(
            f"{subject.name} ({subject.kind}, {subject.head}) generates no text to compare with "
            f"{question.readout.description}; use a causal language model and a text, or pass a generator."
        )
    named = [part.ids for part in question.readout.parts]
    if subject.kind == "decoder" and subject.max_length is not None:
        length = max(1, min(length, subject.max_length - len(question.tokens) + 1))
    if target is None or (isinstance(target, Target) and target.what is None):
        named[0] = respond(question, [whole(question.tokens)], length)[0]
    _not_empty(named[0])
    return Responses(question, tuple(named), length, encoder)


def _of_writer(
    question: Question, target: TargetLike, contrast: int | str | None, length: int, encoder: Subject | None,
    writer: Writer,
) -> Responses:  # fmt: skip
    if encoder is None:
        raise CapabilityError("A generator answers in text, so it needs encoder= to compare; pass a sentence encoder.")
    texts = [text for text in (target, contrast) if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"A generator's answers are compared with text, but the target is {target!r} and the contrast "
            f"{contrast!r}; give texts, or no target."
        )
    own = written(question, writer, [whole(question.tokens)]) if target is None else []
    named = tuple(str(text) for text in (*own, *texts))
    _not_empty(named[0])
    return Responses(question, named, length, encoder, writer)


def _not_empty(reference: Ids | str) -> None:
    if not reference:
        raise InputError("The answer to the whole prompt is empty, so nothing can be like it; name a target text.")


def respond(question: Question, variants: Sequence[Variant], length: int) -> list[Ids]:
    """Return the greedy answer to every variant, at most `length` ids, without its end token; equal ones run once."""
    subject, tokens = question.subject, question.tokens
    answers: dict[Variant, Ids] = dict.fromkeys(variants, ())
    waiting, ends = list(answers), end_ids(subject)

    def step(batch: list[Variant]) -> list[int]:
        rows = [row(subject, tokens, variant, answers[variant]) for variant in batch]
        last = [len(answers[v]) + (len(v.ids) - 1 if subject.kind == "decoder" else 0) for v in batch]
        logits = forward(subject, rows, wanted=torch.tensor(last)[:, None]).logits[:, 0]
        return [int(token) for token in logits.argmax(-1)]

    with torch.no_grad():
        for _ in range(length):
            lengths = [len(variant.ids) + len(answers[variant]) for variant in waiting]
            drawn = dict(zip(waiting, in_batches(waiting, lengths, step), strict=True))
            waiting = [variant for variant in waiting if drawn[variant] not in ends]
            answers.update({variant: (*answers[variant], drawn[variant]) for variant in waiting})
    return [answers[variant] for variant in variants]


def written(question: Question, writer: Writer, variants: Sequence[Variant]) -> list[str]:
    """Return what a writer answers to the text of every variant; equal texts are asked once.

    Raises:
        InputError: a chat, or a replacement that is no deletion.
        GeneratorError: another number of answers.
    """
    tokens = question.tokens
    kept = [tuple(p for p, i in zip(v.origin, v.ids, strict=True) if tokens.ids[p] == i) for v in variants]
    # One token that was not there before stands for an empty input, which is asked as a space.
    replaced = any(v.hollow or (len(k) < len(v.ids) and len(v.ids) > 1) for k, v in zip(kept, variants, strict=True))
    if any(tokens.roles) or replaced:
        raise InputError(
            "A generator is asked with plain text and replacement='delete', but the prompt is a chat or its units are "
            "replaced; give a text and delete."
        )
    texts = ["".join(tokens.pieces[p] for p in places if not tokens.special[p]) or " " for places in kept]
    different = list(dict.fromkeys(texts))
    answers = writer(different)
    if len(answers) != len(different):
        raise GeneratorError(f"{len(different)} texts were asked and {len(answers)} answers came; return one each.")
    by_text = dict(zip(different, answers, strict=True))
    return [by_text[text] for text in texts]


def alike(
    subject: Subject, answers: Sequence[Ids] | Sequence[str], reference: Ids | str, encoder: Subject | None
) -> np.ndarray:
    """Return the cosine between the embedding of each answer and that of the reference: [answers]; 0 for empty ones."""
    values, full = np.zeros(len(answers)), [i for i, answer in enumerate(answers) if answer]
    if not full:
        return values
    if encoder is not None:
        text = reference if isinstance(reference, str) else text_of(subject, reference)
        tokens = encoder.encode(text)
        readout: Readout = resolve(encoder, tokens, Target.similarity(text))
        texts = [answers[i] if isinstance(answers[i], str) else text_of(subject, answers[i]) for i in full]  # type: ignore[arg-type]
        rows = [encoder.encode(text or " ").ids for text in texts]
        variants = [Variant(ids, tuple(range(len(tokens))) if ids == tokens.ids else (0,) * len(ids)) for ids in rows]
        values[full] = score(encoder, tokens, readout, variants)[:, 0]
        return values
    table = subject.model.get_input_embeddings()

    def mean(ids: Ids) -> torch.Tensor:
        with torch.no_grad():
            return table(torch.tensor(ids, device=subject.input_device)).double().mean(0).cpu()

    goal = mean(tuple(reference))  # type: ignore[arg-type]
    rows_ = torch.stack([mean(tuple(answers[i])) for i in full])  # type: ignore[arg-type]
    values[full] = torch.nn.functional.cosine_similarity(rows_, goal[None], dim=-1).numpy()
    return values


def text_of(subject: Subject, ids: Ids) -> str:
    """Return the text of token ids."""
    if subject.tokenizer is None:
        raise InputError(f"{subject.name} was loaded without a tokenizer, so its answers have no text; load it too.")
    return str(subject.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
