"""Variants of an input: some units removed, by deletion or by replacement, always on token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens, Units
from pellucid.models import blackbox
from pellucid.models.edits import Edit
from pellucid.models.forward import Row
from pellucid.models.layout import main_stack

if TYPE_CHECKING:
    from pellucid.core.params import Replacement
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Variant:
    """A changed input: its ids, the original position of each, and positions whose embedding becomes `vector`."""

    ids: tuple[int, ...]
    origin: tuple[int, ...]
    hollow: tuple[int, ...] = ()
    vector: str = ""


def mask_position(subject: Subject, tokens: Tokens) -> int:
    """Return the position of the mask token in the prompt, or -1."""
    mask = getattr(subject.tokenizer, "mask_token_id", None)
    return tokens.ids.index(mask) if mask in tokens.ids else -1


def whole(tokens: Tokens) -> Variant:
    """Return the input unchanged."""
    return Variant(tokens.ids, tuple(range(len(tokens))))


def remove(
    subject: Subject, tokens: Tokens, units: Units, present: Sequence[bool] | np.ndarray, replacement: Replacement
) -> Variant:
    """Return the input with the units that are not present removed.

    `replacement` is "delete", "mask", "pad" or a token id (every token of the unit becomes that token), or "mean" /
    "zero" (its embedding becomes the mean over the vocabulary / zero; positions stay). Tokens outside all units are
    kept, and so is the mask that a masked language model is read at. Where deletion would leave nothing, one start
    token stays (the model's BOS, else EOS, else pad), because a transformer cannot read an empty input.
    """
    return removals(subject, tokens, units, np.asarray(present, dtype=bool)[None], replacement)[0]


def removals(
    subject: Subject, tokens: Tokens, units: Units, present: np.ndarray, replacement: Replacement
) -> list[Variant]:
    """Return the input with the units removed that are not present in a row, for rows [n, units]: see `remove`."""
    kept = mask_position(subject, tokens) if subject.head == "masked-lm" else -1
    fill = None if replacement in ("delete", "mean", "zero") else replacement_id(subject, replacement)
    origin = tuple(range(len(tokens)))
    found = []
    for row in np.asarray(present, dtype=bool).tolist():
        gone = {p for keep, (a, b) in zip(row, units.spans, strict=True) if not keep for p in range(a, b)} - {kept}
        if fill is not None:
            found.append(Variant(tuple(fill if p in gone else t for p, t in enumerate(tokens.ids)), origin))
        elif replacement != "delete":
            found.append(Variant(tokens.ids, origin, tuple(sorted(gone)), str(replacement)))
        elif left := tuple(p for p in origin if p not in gone):
            found.append(Variant(tuple(tokens.ids[p] for p in left), left))
        else:
            found.append(Variant((_start(subject),), (0,)))
    return found


def replacement_id(subject: Subject, replacement: Replacement) -> int:
    """Return the token id that stands for a removed token."""
    if subject.kind == "black-box":
        if replacement in ("mask", "pad"):
            return blackbox.mask_id(subject.state.cache.setdefault("pieces", {}))
        raise InputError(f"A black box has no token {replacement!r}; use replacement='delete' or 'mask'.")
    if isinstance(replacement, int):
        if not 0 <= replacement < subject.vocabulary:
            raise InputError(
                f"The replacement {replacement} is no token id of {subject.name}; use 0 to {subject.vocabulary - 1}."
            )
        return replacement
    names = ("mask_token_id", "unk_token_id", "pad_token_id") if replacement == "mask" else ("pad_token_id",)
    for name in names:
        found = getattr(subject.tokenizer, name, None)
        if found is None and name == "pad_token_id":
            found = getattr(getattr(subject.model, "config", None), name, None)
        if isinstance(found, int) and 0 <= found < subject.vocabulary:
            return found
    raise InputError(
        f"The tokenizer of {subject.name} has no {replacement} token; use replacement='delete', 'mean' or a token id."
    )


def _start(subject: Subject) -> int:
    if subject.kind == "black-box":
        return blackbox.mask_id(subject.state.cache.setdefault("pieces", {}))
    for name in ("bos_token_id", "eos_token_id"):
        for owner in (subject.tokenizer, subject.model.config):
            found = getattr(owner, name, None)
            if isinstance(found, int) and 0 <= found < subject.vocabulary:
                return found
    return subject.pad_id


def default_replacement(subject: Subject) -> Replacement:
    """Return "mask" where the model was trained with a mask token, else "delete"."""
    if subject.kind == "black-box" or getattr(subject.tokenizer, "mask_token_id", None) is None:
        return "delete"
    return "mask"


def row(
    subject: Subject, tokens: Tokens, variant: Variant, forced: tuple[int, ...] = (), edits: tuple[Edit, ...] = ()
) -> Row:
    """Return the batch row of a variant with a teacher-forced continuation behind it."""
    segment = tuple(tokens.segment[p] for p in variant.origin) if any(tokens.segment) else ()
    if variant.hollow:
        where = {"position": tuple(i for i, p in enumerate(variant.origin) if p in set(variant.hollow))}
        edits = (Edit(token_site(subject), "set", fill_vector(subject, variant.vector), where), *edits)
    if subject.kind == "encoder-decoder":
        return Row(variant.ids, (decoder_start(subject), *forced), segment, edits)
    segment = (*segment, *(segment[-1:] * len(forced)))
    return Row((*variant.ids, *forced), (), segment, edits, prompt_length=len(variant.ids))


def token_site(subject: Subject) -> str:
    """Return the site where token embeddings enter: `embed.token`, or the encoder's in an encoder-decoder."""
    name = main_stack(subject.need_layout())
    return "embed.token" if name == "" else "encoder.embed.token"


def decoder_start(subject: Subject) -> int:
    """Return the token id a decoder starts from."""
    config = subject.model.config
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        start = getattr(subject.model.generation_config, "decoder_start_token_id", None)
    return int(start if start is not None else config.pad_token_id or 0)


def fill_vector(subject: Subject, name: str) -> torch.Tensor:
    """Return the embedding that stands for nothing: zeros, or the mean over the vocabulary."""
    embedding = subject.model.get_input_embeddings()
    with torch.no_grad():
        # Writes through `.data` leave no trace in version counters, so a few embeddings are part of the key.
        few = embedding(
            torch.arange(0, subject.vocabulary, max(1, subject.vocabulary // 64), device=subject.input_device)
        )
        if name == "zero":
            return torch.zeros_like(few[0])
        key = (subject.weights_state(), float(few.double().sum()))
        cached = subject.state.cache.get("mean embedding")
        if cached is None or cached[0] != key:
            cached = (key, embedding(torch.arange(subject.vocabulary, device=subject.input_device)).mean(0))
            subject.state.cache["mean embedding"] = cached
    vector: torch.Tensor = cached[1]
    return vector
