"""Every activation as a sum over sources, carried through the whole model to the output.

The part of each source runs along with a row of its own in one forward pass, as a forward-mode tangent. Linear steps
carry parts by themselves, the others are taken as the linear maps that they are at the activations of the run, and
biases are shared among the sources, so that at every step the parts sum to the activation.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.autograd import forward_ad

from pellucid.core.errors import ModelError
from pellucid.core.tokens import Tokens
from pellucid.engine.decomposition import normed, parts
from pellucid.engine.interception import ACTIVATIONS, ROOTS, Call, intercepted
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

with warnings.catch_warnings():
    # On first use, forward mode loads these, and torch warns of how it wrote them.
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")

Bias = Literal["dot", "norm", "equal", "apart"]
Source = tuple[str, dict[str, Any]]


@torch.no_grad()
def parts_of_output(
    subject: Subject, tokens: Tokens, readout: Readout, sources: Sequence[Source], bias: Bias
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each source brings to the readout, [sources, targets], and the readout's values [targets].

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read; its measure should be linear in the logits.
        sources: site and places (axis name to indices); for a full account they hold everything the model starts from.
        bias: how a bias is shared among the sources at a position, by |part . bias|, by |part|, or equally among parts
            that are not zero; "apart" gives it to none of them.

    Exact: with shared biases the parts of sources that hold everything sum to a logit. Sharing needs all sources in one
    batch; without it they come in several.
    """
    value: list[torch.Tensor] = []

    def run(batch: list[Source]) -> list[torch.Tensor]:
        edits = [(Edit(site, _followed, where=where),) for site, where in batch]
        with forward_ad.dual_level(), intercepted(subject, Additive(bias, len(batch))):
            values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits)
            value.append(forward_ad.unpack_dual(values).primal[0].clone())
            return list(parts(values)[1].clone())

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    found = in_batches(list(sources), [length] * len(sources), run) if bias == "apart" else run(list(sources))
    return torch.stack(list(found)), value[0]


def _followed(value: torch.Tensor, context: Context) -> torch.Tensor:
    return forward_ad.make_dual(value.detach(), value.detach().clone())


class Additive:
    """The propagation of parts that sum to the total, for rows that differ in their part alone.

    Attention patterns, the divisors of norms and the choices of a router belong to the total; an activation is the
    factor f(x) / x; a product of two values gives each half its parts.
    """

    def __init__(self, bias: Bias, rows: int) -> None:
        self.bias, self.rows, self.stage = bias, rows, 0.0

    def depends(self, value: Any) -> bool:
        """Return whether a value carries parts."""
        return isinstance(value, torch.Tensor) and forward_ad.unpack_dual(value).tangent is not None

    def linear(self, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Multiply the parts by the weights and share the bias among them."""
        if not self.depends(x):
            return call(x, weight, bias)
        total, part = parts(x)
        moved = call(part, weight, None)
        if total.ndim == 3 and len(total) == self.rows:  # [row, position, dimension]: the total is that of any row
            value = call(total[:1], weight, bias).repeat(self.rows, 1, 1)
        else:
            value = call(total, weight, bias)
        return forward_ad.make_dual(value, moved if bias is None else self._with(bias, moved))

    def product(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Give each factor's parts half of the product."""
        (total_a, part_a), (total_b, part_b) = parts(a), parts(b)
        return forward_ad.make_dual(call(total_a, total_b), (call(part_a, total_b) + call(total_a, part_b)) / 2)

    def scaled(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Multiply the parts by the constant."""
        return call(a, b)

    def add(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Add parts; a constant is shared like a bias."""
        if self.depends(a) and self.depends(b):
            return call(a, b)
        (total_a, part_a), (total_b, part_b) = parts(a), parts(b)
        value = call(total_a, total_b)
        part = call(part_a, part_b)
        constant = call(torch.zeros_like(total_a), total_b) if self.depends(a) else total_a
        return forward_ad.make_dual(value, self._with(constant, part.expand_as(value)))

    def elementwise(self, call: Call, x: torch.Tensor, name: str, value: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply the parts by f(x) / x; the divisor of a norm has none."""
        total, part = parts(x)
        if name in ROOTS:
            return call(total)
        if name not in ACTIVATIONS and value is None:
            return call(x)
        value = call(total) if value is None else value.detach()
        small = torch.full((1,), 1e-4, dtype=total.dtype, device=total.device)
        factor = torch.where(total == 0, call(small) / small, value / total)
        return forward_ad.make_dual(value, factor * part)

    def softmax(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Keep the pattern of the total."""
        return call(parts(x)[0], dim)

    def attention(
        self, call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Mix the parts of the values by the pattern of the total, fused."""
        (query, _), (key, _), (total, part) = parts(query), parts(key), parts(value)
        mask = None if mask is None else parts(mask)[0]
        return forward_ad.make_dual(call(query, key, total, mask), call(query, key, part, mask))

    def logsumexp(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Follow the derivative: it belongs to the measure that is read."""
        return call(x, dim)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Centre the parts, divide them by the total's spread and share the bias among them."""
        total, part = parts(x)
        value, moved = normed(total, part, weight, eps)
        if bias is not None:
            value, moved = value + bias, self._with(bias, moved)
        return forward_ad.make_dual(value, moved)

    def _with(self, bias: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        """Return the parts with their shares of a bias; the rows lie along the first axis, alone or with positions."""
        if self.bias == "apart":
            return part
        if part.shape[0] % self.rows:
            raise ModelError(
                f"A bias meets {part.shape[0]} vectors of {self.rows} sources at once, which cannot be told apart; use "
                "bias='apart'."
            )
        own = part.reshape(self.rows, -1, *part.shape[1:])
        constant = bias.expand_as(part).reshape(own.shape)
        if self.bias == "dot":
            size = (own * constant).sum(-1).abs()
        else:
            size = own.norm(dim=-1)
            size = (size > 0).to(size) if self.bias == "equal" else size
        total = size.sum(0, keepdim=True)
        share = torch.where(total > 0, size / torch.where(total > 0, total, 1.0), 1 / self.rows)
        return part + (share[..., None] * constant).reshape(part.shape)
