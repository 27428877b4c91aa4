"""What a prompt looks like, without a model: one prompt or a sequence of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from pellucid.core.params import Array


def is_many(prompt: Any) -> bool:
    """Say whether a value is a sequence of prompts rather than one prompt.

    One prompt is: a text; a chat (list of mappings with "role"); token ids (list of whole numbers, a 1-D array or
    tensor, or a 2-D one with a single row); a text pair (a tuple of exactly two texts). A sequence is: a list or tuple
    of those (so a *list* of two texts is two prompts, and a tuple of three texts is three), or a 2-D array or tensor of
    ids with several rows. An empty list counts as one (empty) prompt, which `Subject.encode` refuses.
    """
    if prompt is None or isinstance(prompt, str | bytes | Mapping):
        return False
    if isinstance(prompt, Array) and getattr(prompt.dtype, "kind", "i") not in "OUT":
        return len(prompt.shape) == 2 and int(prompt.shape[0]) > 1
    if not (isinstance(prompt, Iterable) and hasattr(prompt, "__len__")) or len(prompt) == 0:  # type: ignore[arg-type]
        return False
    items = list(cast("Iterable[Any]", prompt))
    if isinstance(prompt, tuple) and len(items) == 2 and all(isinstance(item, str) for item in items):
        return False
    first = items[0]
    if isinstance(first, Mapping):
        return False
    return isinstance(first, str | list | tuple) or (isinstance(first, Array) and len(first.shape) > 0)
