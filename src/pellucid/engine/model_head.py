"""The head of a model on its own, given vectors of the residual stream in place of what the blocks make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.errors import CapabilityError
from pellucid.engine.backward import frozen
from pellucid.engine.variants import decoder_start
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, acting, hooked, parts_of
from pellucid.models.layout import block_of, depth, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

NUMBERS_AT_ONCE = 2**24
WIDEST = 256


def outputs_of(subject: Subject, vectors: torch.Tensor, *, grad: bool = False) -> torch.Tensor:
    """Return what the model's head makes of vectors: [vectors, dimension] -> [vectors, outputs].

    The native model runs with its blocks replaced by the vectors, so final norm, projection,
    scale, cap and bias are the model's own. Exact at the last block's output, for heads that read one position. Takes
    no pass through the blocks, and none is counted; edits behind the last block do not act.

    Args:
        subject: the model.
        vectors: rows; the caller keeps them as few as `at_once` says.
        grad: keep the graph, weights frozen.

    Raises:
        CapabilityError: a model without a head.
    """
    if subject.head == "none" or subject.model is None:
        raise CapabilityError(
            f"A lens reads vectors through the head of a model, but {subject.name} ({subject.kind}) has none; load the "
            "model with its language model head or classifier."
        )
    plain = subject.without_edits()
    # Language model heads work position by position, so one row carries many vectors; classifiers pool a row.
    rows = -(-len(vectors) // (1 if plain.head == "classification" else min(plain.max_length or WIDEST, WIDEST)))
    width = -(-len(vectors) // rows)
    ids = (plain.pad_id,) * width
    token = Row((plain.pad_id,), (decoder_start(plain),) * width) if plain.kind == "encoder-decoder" else Row(ids)
    with plain.lock, plain.uncounted():
        parts = _parts(plain, token)
        filled = torch.nn.functional.pad(vectors, (0, 0, 0, rows * width - len(vectors))).view(rows, width, -1)

        def give(*args: Any, **kwargs: Any) -> Any:
            like = args[0] if args else kwargs["hidden_states"]
            value = filled.to(device=like.device, dtype=like.dtype)
            return (value, *[None] * (parts - 1)) if parts else value

        with acting(dict.fromkeys(_blocks(plain), give)), frozen(plain.model) if grad else nullcontext():
            logits = forward(plain, [token] * rows, grad=grad).logits
    return logits.flatten(0, 1)[: len(vectors)] if logits.ndim == 3 else logits


def at_once(subject: Subject) -> int:
    """Return how many vectors go through the head together: their logits are some 16 million numbers at most."""
    return max(1, NUMBERS_AT_ONCE // max(subject.vocabulary, 1))


class LateOutputs:
    """Collect what the last block gives in several batches, and let the head read many vectors at once.

    Its weights are so large that few vectors take as long as many. `read` is given outputs [n, wanted, outputs] and
    the n labels that came with their vectors.
    """

    def __init__(self, subject: Subject, read: Callable[[torch.Tensor, list[Any]], None]) -> None:
        """Begin with no vectors."""
        self.subject, self.read = subject, read
        self.waiting: list[torch.Tensor] = []
        self.labels: list[Any] = []

    def add(self, vectors: torch.Tensor, labels: Sequence[Any]) -> None:
        """Take vectors [n, wanted, dimension] with n labels, and read all that wait when they are enough."""
        self.waiting.append(vectors)
        self.labels += labels
        if len(self.labels) * vectors.shape[1] >= at_once(self.subject):
            self.finish()

    def finish(self) -> None:
        """Read whatever still waits."""
        if not self.waiting:
            return
        vectors, labels = torch.cat(self.waiting), self.labels
        self.waiting, self.labels = [], []
        most = max(1, at_once(self.subject) // vectors.shape[1])
        for first in range(0, len(labels), most):
            some = vectors[first : first + most]
            outputs = outputs_of(self.subject, some.flatten(0, 1)).unflatten(0, some.shape[:2])
            self.read(outputs, labels[first : first + most])


def _blocks(subject: Subject) -> list[torch.nn.Module]:
    layout = subject.need_layout()
    stack = layout.stacks[main_stack(layout)]
    count = depth(subject.model, layout)
    return list(dict.fromkeys(block_of(subject.model, stack, layer)[0] for layer in range(count)))


def _parts(subject: Subject, token: Row) -> int:
    """Return how long the tuple is that a block gives, 0 where it gives a tensor."""
    key = ("parts of a block", type(subject.model))
    if key not in subject.state.cache:
        seen: list[int] = []

        def see(output: Any) -> Any:
            seen.append(parts_of(output))
            return output

        with torch.no_grad(), hooked([Hook(_blocks(subject)[-1], "output", see)]):
            forward(subject, [token])
        subject.state.cache[key] = seen[-1]
    return int(subject.state.cache[key])
