"""What is explained: one class for next tokens, continuations, classes, contrasts and functions of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Measure = Literal["auto", "logit", "log_prob", "prob", "entropy"]
Kind = Literal["auto", "next", "continuation", "generated", "class", "similarity", "function"]


@dataclass(frozen=True)
class Target:
    """Say what to explain; methods take one, or a plain token, text, class name or function in its place.

    `what` is a token id, a text, a sequence of token ids, a class name or index, a text to be similar to, or a
    function of the logits. `contrast` is the alternative whose score is subtracted ("this rather than that").
    `measure` "auto" means the logit for one token or class and the log-probability for a continuation. `each` gives one
    score per target token instead of their sum. `length` is the number of tokens for `kind="generated"`.
    """

    what: int | str | Sequence[int] | Callable[..., Any] | None = None
    contrast: int | str | Sequence[int] | None = None
    measure: Measure = "auto"
    kind: Kind = "auto"
    each: bool = False
    length: int = 0

    @classmethod
    def continuation(
        cls,
        what: str | Sequence[int],
        *,
        contrast: str | Sequence[int] | None = None,
        each: bool = False,
        measure: Measure = "auto",
    ) -> Target:
        """Explain a given continuation, teacher-forced: the sum over its tokens, or each token."""
        return cls(what, contrast, measure, "continuation", each)

    @classmethod
    def generated(cls, length: int, *, each: bool = True, measure: Measure = "auto") -> Target:
        """Explain the model's own greedy continuation of at most `length` tokens."""
        return cls(None, None, measure, "generated", each, length)

    @classmethod
    def similarity(cls, text: str) -> Target:
        """Explain the cosine similarity of the mean-pooled embedding to that of `text` (models without a head)."""
        return cls(text, None, "auto", "similarity")

    @classmethod
    def function(cls, of: Callable[..., Any]) -> Target:
        """Explain any function of the logits at the readout position: [rows, vocabulary or classes] -> [rows]."""
        return cls(of, None, "auto", "function")
