"""From what a user calls a target to a readout: token, text, class, contrast, continuation, function, similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch

from pellucid.core.errors import InputError, TargetError, did_you_mean
from pellucid.core.targets import Kind, Measure, Target
from pellucid.core.tokens import Tokens
from pellucid.engine.generation import greedy
from pellucid.engine.reading import read
from pellucid.engine.readout import Part, Readout
from pellucid.engine.variants import mask_position, whole
from pellucid.models import inputs

if TYPE_CHECKING:
    from pellucid.core.params import TargetLike
    from pellucid.models.subject import Subject


KINDS: dict[str, tuple[Kind, ...]] = {
    "causal-lm": ("next", "continuation", "generated"),
    "masked-lm": ("next",),
    "classification": ("class",),
    "none": ("similarity",),
}


def resolve(subject: Subject, tokens: Tokens, target: TargetLike = None, contrast: int | str | None = None) -> Readout:
    """Resolve a target against one prompt.

    None means what the model itself predicts; an integer is a token id (or class index); a text is a token, a class
    name or, when it is several tokens, a teacher-forced continuation.

    Raises:
        TargetError: the target does not exist for this model, with what would work.
    """
    asked = target if isinstance(target, Target) else Target(target)
    if contrast is not None:
        if asked.contrast is not None:
            raise TargetError("The contrast was given twice, in the Target and as an argument; give it once.")
        asked = Target(asked.what, contrast, asked.measure, asked.kind, asked.each, asked.length)
    _check_asked(subject, asked)
    if callable(asked.what):
        return _function(subject, tokens, asked)
    if subject.head == "none" and subject.kind != "black-box":
        return _similarity(subject, asked)
    if subject.head == "classification" or subject.kind == "black-box":
        return _class(subject, tokens, asked)
    if subject.head == "masked-lm":
        return _masked(subject, tokens, asked)
    return _token(subject, tokens, asked)


def _check_asked(subject: Subject, asked: Target) -> None:
    """Raise `TargetError` for a kind or measure that is unknown, or that this subject does not have."""
    for name, value, known in (("kind", asked.kind, get_args(Kind)), ("measure", asked.measure, get_args(Measure))):
        if value not in known:
            raise TargetError(
                f"The {name} {value!r} of a target is unknown{did_you_mean(str(value), known)}; use one of "
                f"{', '.join(known)}."
            )
    head = "classification" if subject.kind == "black-box" else subject.head
    own = KINDS[head]
    if asked.kind not in (*own, "auto", "function") or (asked.kind == "function" and not callable(asked.what)):
        raise TargetError(
            f"A target of kind {asked.kind!r} was asked for, but {subject.name} ({subject.kind}) has head "
            f"{subject.head} and explains {' or '.join(own)}, "
            "or a function of its output."
        )
    if isinstance(asked.what, bool) or isinstance(asked.contrast, bool):
        raise TargetError("The target is True or False; give a token id, a class index or a text.")
    if asked.measure == "entropy" and asked.contrast is not None:
        raise TargetError(
            "The entropy belongs to the whole distribution, so it takes no contrast; leave the contrast out."
        )


def one_token(readout: Readout) -> Readout:
    """Return the readout if it explains one token or class; raise `TargetError` otherwise."""
    longest = max((len(part.ids) for part in readout.parts), default=1)
    if longest != 1:
        raise TargetError(
            f"The target {readout.description} is {longest} tokens where one is needed; name one token, or a "
            "method that takes continuations."
        )
    return readout


def name_of(subject: Subject, token: int) -> str:
    """Return the text of a token id, or ⟨id⟩ without a tokenizer."""
    if subject.tokenizer is None:
        return f"⟨{token}⟩"
    return str(subject.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _measure(asked: Target, default: str) -> str:
    return default if asked.measure == "auto" else asked.measure


def _ids(subject: Subject, tokens: Tokens, what: Any, role: str) -> tuple[int, ...]:
    if isinstance(what, str):
        if subject.tokenizer is None:
            raise TargetError(
                f"The {role} {what!r} is text, but {subject.name} was loaded without a tokenizer; give a token id."
            )
        ids = inputs.target_ids(subject.tokenizer, what, prompt_tokens=tokens if subject.kind == "decoder" else None)
    else:
        ids = (int(what),) if isinstance(what, int) or getattr(what, "ndim", 1) == 0 else tuple(int(i) for i in what)
    if not ids:
        raise TargetError(f"The {role} is empty; give a token id or a text.")
    bad = [i for i in ids if not 0 <= i < subject.vocabulary]
    if bad:
        raise TargetError(f"The {role} {bad[0]} is no token id of {subject.name}; use 0 to {subject.vocabulary - 1}.")
    return ids


def _token(subject: Subject, tokens: Tokens, asked: Target) -> Readout:
    if asked.kind == "generated":
        if asked.length < 1:
            raise TargetError("A generated target needs length= of at least 1 token.")
        ids = greedy(subject, tokens, asked.length)
    elif asked.what is None:
        if asked.kind == "continuation":
            raise TargetError(
                "A continuation target needs its text or token ids; use Target.generated(length) for the model's own."
            )
        ids = (_top(subject, tokens, "next"),)
    else:
        ids = _ids(subject, tokens, asked.what, "target")
    parts = [Part(ids)]
    text = "".join(name_of(subject, i) for i in ids)
    description = f"{text!r}"
    if asked.contrast is not None:
        other = _ids(subject, tokens, asked.contrast, "contrast")
        if asked.each and len(other) != len(ids):
            raise TargetError(
                f"Scoring each token against a contrast needs the same length, but the target has {len(ids)} "
                f"tokens and the contrast {len(other)}; "
                "drop each=True or give texts of equal length."
            )
        parts.append(Part(other, -1.0))
        description += f" rather than {''.join(name_of(subject, i) for i in other)!r}"
    default = "logit" if max(len(p.ids) for p in parts) == 1 and asked.kind in ("auto", "next") else "log_prob"
    labels = tuple(name_of(subject, i) for i in ids) if asked.each else (text,)
    _check_length(subject, tokens, max(len(part.ids) for part in parts))
    readout = Readout("next", tuple(parts), _measure(asked, default), asked.each, labels, description)
    return one_token(readout) if asked.kind == "next" else readout


def _check_length(subject: Subject, tokens: Tokens, length: int) -> None:
    """Raise `InputError` where prompt and target, its last token aside, are longer than the model takes."""
    before = len(tokens) if subject.kind == "decoder" else 1
    if subject.max_length is not None and before + length - 1 > subject.max_length:
        raise InputError(
            f"A prompt of {len(tokens)} tokens and a target of {length} exceed the model's limit of "
            f"{subject.max_length}; shorten one of them."
        )


def _top(subject: Subject, tokens: Tokens, kind: Any) -> int:
    size = Readout(kind, (Part((0,)),), "logit", False, ("",), "")
    found: list[int] = []

    def best(logits: torch.Tensor) -> torch.Tensor:
        found.append(int(logits[0].argmax()))
        return logits[:, 0]

    read(subject, tokens, Readout(kind, size.parts, "logit", False, ("",), "", function=best), [whole(tokens)])
    return found[0]


def _masked(subject: Subject, tokens: Tokens, asked: Target) -> Readout:
    if mask_position(subject, tokens) < 0:
        mask = getattr(subject.tokenizer, "mask_token", None) or "the mask token"
        raise TargetError(
            f"A masked language model predicts at {mask}, which the prompt lacks; put {mask} where the word should be."
        )
    ids = (_top(subject, tokens, "mask"),) if asked.what is None else _ids(subject, tokens, asked.what, "target")
    parts = [Part(ids)]
    description = repr(name_of(subject, ids[0]).strip())
    if asked.contrast is not None:
        parts.append(Part(_ids(subject, tokens, asked.contrast, "contrast"), -1.0))
        description += f" rather than {name_of(subject, parts[1].ids[0]).strip()!r}"
    readout = Readout(
        "mask", tuple(parts), _measure(asked, "logit"), asked.each, (name_of(subject, ids[0]),), description
    )
    return one_token(readout)


def _class(subject: Subject, tokens: Tokens, asked: Target) -> Readout:
    names = _class_names(subject)
    index = _top(subject, tokens, "pooled") if asked.what is None else _class_index(asked.what, names)
    parts = [Part((index,))]
    label = names.get(index, f"output {index}")
    description = f"class {label!r}" if names else f"output {index}"
    if asked.contrast is not None:
        other = _class_index(asked.contrast, names)
        parts.append(Part((other,), -1.0))
        description += f" rather than {names.get(other, str(other))!r}"
    default = "output" if subject.kind == "black-box" else "logit"
    return Readout("pooled", tuple(parts), _measure(asked, default), asked.each, (label,), description)


def _class_names(subject: Subject) -> dict[int, str]:
    if subject.kind == "black-box":
        return {}
    return {int(k): str(v) for k, v in (subject.model.config.id2label or {}).items()}


def _class_index(what: Any, names: dict[int, str]) -> int:
    if isinstance(what, str):
        lowered = {name.lower(): index for index, name in names.items()}
        if what.lower() not in lowered:
            raise TargetError(
                f"The class {what!r} is unknown{did_you_mean(what, names.values())}; the model has "
                f"{list(names.values())}."
            )
        return lowered[what.lower()]
    if hasattr(what, "__index__"):
        if names and what not in names:
            raise TargetError(f"The class {what} is out of range; the model has classes 0 to {len(names) - 1}.")
        return int(what)
    if isinstance(what, Sequence) and len(what) == 1:
        return _class_index(what[0], names)
    raise TargetError(f"A classifier explains one class, but the target is {what!r}; give a class name or its index.")


def _similarity(subject: Subject, asked: Target) -> Readout:
    if asked.contrast is not None:
        raise TargetError(
            "A similarity takes no contrast; pass a function of the mean hidden state that subtracts the alternative."
        )
    if not isinstance(asked.what, str):
        raise TargetError(
            f"{subject.name} has no output head, so there is no token or class to explain; pass "
            "Target.similarity(text) or a function of the mean hidden state."
        )
    reference: list[torch.Tensor] = []

    def keep(mean: torch.Tensor) -> torch.Tensor:
        reference.append(mean[0].detach())
        return mean[:, 0]

    other = subject.encode(asked.what)
    read(subject, other, Readout("vector", (Part((0,)),), "output", False, ("",), "", function=keep), [whole(other)])
    label = f"similarity to {asked.what!r}"
    return Readout("vector", (Part((0,)),), "output", asked.each, (label,), label, reference=reference[0])


def _function(subject: Subject, tokens: Tokens, asked: Target) -> Readout:
    if asked.contrast is not None:
        raise TargetError("A function target takes no contrast; subtract the alternative inside the function.")
    if subject.head == "none" and subject.kind != "black-box":
        kind: Any = "vector"
    else:
        kind = {"classification": "pooled", "masked-lm": "mask"}.get(
            subject.head, "pooled" if subject.kind == "black-box" else "next"
        )
    if kind == "mask" and mask_position(subject, tokens) < 0:
        raise TargetError(
            "A masked language model is read at its mask token, which the prompt lacks; put it where the word "
            "should be."
        )
    name = getattr(asked.what, "__name__", "function")
    return Readout(kind, (Part((0,)),), "logit", asked.each, (name,), f"function {name}", function=asked.what)  # type: ignore[arg-type]
