"""The head behind the last block as a linear map: what a vector in the residual stream adds to the output directly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import TargetError
from pellucid.core.tokens import Tokens
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.rules import Rules, following
from pellucid.engine.targets import one_token
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit
from pellucid.models.layout import depth, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class DirectPath:
    """`values` [targets] is what the readout gives; `directions` [targets, position, dimension] weigh the last stream.

    `constants` [targets] is what biases behind the last block add: values = sum of stream * directions + constants.
    """

    values: torch.Tensor
    directions: torch.Tensor
    constants: torch.Tensor


def linear_readout(readout: Readout, method: str) -> Readout:
    """Return the readout if it is a logit or a difference of logits of single tokens or classes.

    Raises:
        TargetError: it is another function of the logits, which has no exact sum.
    """
    if readout.function is not None or readout.reference is not None or readout.measure not in ("logit", "output"):
        raise TargetError(
            f"{method} shares out logits, but the target {readout.description} is a {readout.unit}; use a token or "
            "class with measure 'logit', or a method of another kind, such as integrated_gradients."
        )
    return one_token(readout)


def direct_path(subject: Subject, tokens: Tokens, readout: Readout) -> DirectPath:
    """Return the readout as a linear map of what leaves the last block of the stack that feeds the head.

    Norms are taken at their divisors, activations of the head (a pooler's tanh) as the factor f(x) / x, so that the map
    is exact at this stream. Costs one forward pass and one backward pass per target through the head alone.
    """
    layout = subject.need_layout()
    last = str(Site(main_stack(layout), depth(subject.model, layout) - 1, "resid_post"))
    kept: list[torch.Tensor] = []

    def leaf(value: torch.Tensor, context: Context) -> torch.Tensor:
        kept.append(value.detach().clone().requires_grad_())
        return kept[0]

    with torch.enable_grad(), following(subject, Rules()):
        edits = [(Edit(last, leaf),)]
        values, _ = read(subject, tokens, readout, [whole(tokens)], edits=edits, grad=True)
        grads = [torch.autograd.grad(value, kept[0], retain_graph=True)[0] for value in values[0]]
    subject.count(backwards=len(grads))
    dtype = torch.float64 if subject.dtype == "float64" else torch.float32
    directions, stream = torch.stack(grads).to(dtype), kept[0].detach().to(dtype)
    given = values[0].detach().to(dtype)
    return DirectPath(given, directions, given - torch.einsum("tpd,pd->t", directions, stream))
