"""A prompt as a model reads it, and what it says next: the cheap question behind the first screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens
from pellucid.web.work import edited

if TYPE_CHECKING:
    import torch

    from pellucid.models.subject import Subject

CHUNK = 64  # positions whose probabilities are made at once, so that a long prompt needs no second copy of its logits
MOST_CANDIDATES = 50_000


def read_prompt(subject: Subject, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokens, candidates and notes for a prompt.

    Args:
        subject: the model.
        request: the checked body: prompt, edits, top, positions, watch.

    Raises:
        PellucidError: a prompt that the model cannot take, or a text that is no token.
    """
    subject = edited(subject, request.get("edits", []))
    encoded = subject.encoded(request["prompt"])
    tokens = encoded.tokens
    answer: dict[str, Any] = {
        "text": tokens.text,
        "tokens": [_token(tokens, i) for i in range(len(tokens))],
        "predictions": [],
        "by_position": [],
        "watched": [],
        "notes": list(encoded.notes),
    }
    if subject.head != "none":
        everywhere = request["positions"] == "all"
        if everywhere and len(tokens) * request["top"] > MOST_CANDIDATES:
            raise InputError(
                f"{request['top']} candidates at each of {len(tokens)} positions were asked for, and at most "
                f"{MOST_CANDIDATES} are told; lower 'top' or ask for the last position."
            )
        answer |= _said(subject, tokens, request, everywhere)
    return answer


def _token(tokens: Tokens, index: int) -> dict[str, Any]:
    start, end = tokens.offsets[index] if tokens.offsets is not None else (None, None)
    return {
        "id": tokens.ids[index],
        "text": tokens.pieces[index],
        "start": start,
        "end": end,
        "special": tokens.special[index],
        "role": tokens.roles[index] if tokens.roles else "",
        "message": tokens.message[index] if tokens.message else 0,
    }


def _said(subject: Subject, tokens: Tokens, request: Mapping[str, Any], everywhere: bool) -> dict[str, Any]:
    """Return the candidates at the place where the answer is read, and at each position where that is asked for."""
    import torch

    from pellucid.engine.variants import mask_position, row, whole
    from pellucid.models.forward import forward

    with torch.no_grad():
        if subject.head == "classification":
            logits = _numbers(forward(subject, [row(subject, tokens, whole(tokens))]).logits[0])
            return {"predictions": _top(subject, logits, request["top"]), "watched": []}
        at = {"decoder": len(tokens) - 1, "encoder-decoder": 0}.get(subject.kind, -1)
        at = mask_position(subject, tokens) if at < 0 else at
        wanted = None if everywhere else torch.tensor([[at]])
        logits = _numbers(forward(subject, [row(subject, tokens, whole(tokens))], wanted=wanted).logits[0])
        last = logits[at if everywhere else 0]
        found: dict[str, Any] = {"predictions": _top(subject, last, request["top"])}
        found["watched"] = _watched(subject, tokens, last, request.get("watch", []))
        if everywhere:
            found["by_position"] = _by_position(subject, logits, request["top"])
    return found


def _top(subject: Subject, logits: torch.Tensor, count: int) -> list[dict[str, Any]]:
    probabilities = logits.double().softmax(-1)
    best = probabilities.topk(min(count, len(probabilities))).indices.tolist()
    return _candidates(subject, logits, probabilities, best)


def _by_position(subject: Subject, logits: torch.Tensor, count: int) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    names: dict[int, str] = {}
    for start in range(0, len(logits), CHUNK):
        part = logits[start : start + CHUNK]
        normal = part.float().logsumexp(-1, keepdim=True)
        best = part.float().topk(min(count, part.shape[-1]))
        chances = (best.values - normal).exp().tolist()
        for ids, values, own in zip(best.indices.tolist(), best.values.tolist(), chances, strict=True):
            found.append(
                [
                    {"id": i, "text": _name(subject, i, names), "probability": p, "logit": _finite(v)}
                    for i, v, p in zip(ids, values, own, strict=True)
                ]
            )
    return found


def _watched(subject: Subject, tokens: Tokens, logits: torch.Tensor, watch: Sequence[Any]) -> list[dict[str, Any]]:
    from pellucid.models.inputs import one_token

    prompt = tokens if subject.kind == "decoder" else None
    ids = [w if isinstance(w, int) else one_token(subject.tokenizer, w, prompt_tokens=prompt) for w in watch]
    too_large = [i for i in ids if i >= len(logits)]
    if too_large:
        raise InputError(
            f"The token id {too_large[0]} is watched, but the model has {len(logits)}; give a smaller one."
        )
    return _candidates(subject, logits, logits.double().softmax(-1), ids)


def _candidates(
    subject: Subject, logits: torch.Tensor, probabilities: torch.Tensor, ids: Sequence[int]
) -> list[dict[str, Any]]:
    names: dict[int, str] = {}
    return [
        {
            "id": i,
            "text": _name(subject, i, names),
            "probability": float(probabilities[i]),
            "logit": _finite(float(logits[i])),
        }
        for i in ids
    ]


def _finite(logit: float) -> float | None:
    """Return a logit, or None for a token that the model rules out."""
    return logit if math.isfinite(logit) else None


def _numbers(logits: torch.Tensor) -> torch.Tensor:
    """Return logits, of which none is NaN; raise `InputError` where edits made them so."""
    if bool(logits.isnan().any()):
        raise InputError("The model's output is no number, because its edits push it too far; weaken or remove them.")
    return logits


def _name(subject: Subject, index: int, known: dict[int, str]) -> str:
    """Return the text of a token, or the name of a class."""
    from pellucid.engine.targets import name_of

    if index not in known:
        labels = (subject.model.config.id2label or {}) if subject.head == "classification" else None
        known[index] = name_of(subject, index) if labels is None else str(labels.get(index, index))
    return known[index]
