"""Propagation rules of relevance, as changes of the backward pass: relevance is value times this changed gradient.

With c = R / value for every value in the model, a rule says how c goes back through one step. Where all steps keep
their plain gradient, c is the gradient; every rule here keeps the sum of the relevance, or says that it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from pellucid.engine.interception import ACTIVATIONS, ROOTS, Call, intercepted
from pellucid.engine.through import scaled, through

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Rules:
    """Which rule each kind of step follows.

    `linear`: "epsilon" divides by the output plus epsilon (0: contributions in proportion, the plain gradient); "gamma"
    favours contributions of the output's sign by 1 + gamma; "alpha_beta" gives alpha of the relevance to positive and
    1 - alpha to negative contributions; "supporters" gives all of it to contributions of the output's sign, also in
    sums, products with constants and norms, so that no relevance changes its sign (gamma without end).
    `product`: "half" to each factor, "detach_gate" nothing to the factor that comes out of an activation, "gradient".
    `softmax`: "detach" takes attention as given; "gradient", at `temperature` times the scores' temperature.
    `norms`: "freeze" takes the divisor of a norm as given. `activations`: "identity" passes relevance on unchanged.
    """

    linear: Literal["epsilon", "gamma", "alpha_beta", "supporters"] = "epsilon"
    epsilon: float = 0.0
    gamma: float = 0.25
    alpha: float = 2.0
    product: Literal["half", "detach_gate", "gradient"] = "half"
    softmax: Literal["detach", "gradient"] = "detach"
    temperature: float = 1.0
    norms: Literal["freeze", "gradient"] = "freeze"
    activations: Literal["identity", "gradient"] = "identity"


@dataclass
class Absorbed:
    """Constants that were added on the way, each a leaf with the stage it was added at: their share is leaf x c."""

    leaves: list[tuple[float, torch.Tensor]] = field(default_factory=list)

    def constant(self, value: torch.Tensor, stage: float) -> torch.Tensor:
        """Return a constant as a leaf of the graph and remember it."""
        if not value.is_floating_point():
            return value
        leaf = value.detach().clone().requires_grad_()
        self.leaves.append((stage, leaf))
        return leaf


@contextmanager
def following(subject: Subject, rules: Rules) -> Iterator[Absorbed]:
    """Let backward passes of what runs in this context follow the rules; yield what absorbs relevance on the way."""
    backward = Backward(rules)
    with intercepted(subject, backward):
        yield backward.absorbed


class Backward:
    """The propagation that `Rules` describe."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.stage, self.absorbed = rules, 0.0, Absorbed()
        self.gates: list[torch.Tensor] = []  # kept alive, so that no other tensor takes their identity

    def depends(self, value: Any) -> bool:
        """Return whether gradients flow through a value."""
        return isinstance(value, torch.Tensor) and value.requires_grad

    def linear(self, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Share the output among inputs and bias by the linear rule."""
        if not self.depends(x):
            return call(x, weight, bias)
        bias = None if bias is None else self.absorbed.constant(bias, self.stage)
        if self.rules.linear == "epsilon":
            return self._stabilised(call(x, weight, bias))
        above, below = weight.clamp(min=0), weight.clamp(max=0)
        over, under = (None, None) if bias is None else (bias.clamp(min=0), bias.clamp(max=0))
        up, down = x.clamp(min=0), x.clamp(max=0)
        positive = call(up, above, over) + call(down, below, None)
        negative = call(up, below, under) + call(down, above, None)
        return self._signed(call(x.detach(), weight, None if bias is None else bias.detach()), positive, negative)

    def product(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Share the output among two factors."""
        if self.rules.product == "detach_gate":
            if any(a is gate for gate in self.gates):
                return call(a.detach(), b)
            if any(b is gate for gate in self.gates):
                return call(a, b.detach())
        if self.rules.product == "gradient":
            return call(a, b)
        found = call(a, b)
        if not found.requires_grad or found.numel() > a.numel() + b.numel():  # such as the scores of attention
            return call(scaled(a, 0.5), scaled(b, 0.5))
        found.register_hook(_half)
        return found.view_as(found)  # whoever asks for its gradient asks for the whole

    def scaled(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Share a product with a constant matrix among the entries of the other."""
        if self.rules.linear == "epsilon":
            return self._stabilised(call(a, b))
        if self.rules.linear != "supporters":
            return call(a, b)
        positive = call(a.clamp(min=0), b.clamp(min=0)) + call(a.clamp(max=0), b.clamp(max=0))
        negative = call(a.clamp(min=0), b.clamp(max=0)) + call(a.clamp(max=0), b.clamp(min=0))
        return self._signed(call(a.detach(), b.detach()), positive, negative)

    def add(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Share a sum among its terms in proportion; a constant term absorbs its part."""
        a, b = (v if self.depends(v) else self.absorbed.constant(v, self.stage) for v in (a, b))
        if self.rules.linear != "supporters":
            return call(a, b)
        b = call(torch.zeros_like(b), b)  # turns a difference into a sum
        positive, negative = a.clamp(min=0) + b.clamp(min=0), a.clamp(max=0) + b.clamp(max=0)
        return self._signed(a.detach() + b.detach(), positive, negative)

    def elementwise(self, call: Call, x: torch.Tensor, name: str, value: torch.Tensor | None = None) -> torch.Tensor:
        """Pass relevance through an activation unchanged, and none through the divisor of a norm."""
        if name in ROOTS and self.rules.norms == "freeze":
            return call(x.detach())
        if name == "sigmoid" and self.rules.activations == "identity":  # a softmax over two
            return call(x.detach() if self.rules.softmax == "detach" else x)
        known = name in ACTIVATIONS or value is not None
        if not known or self.rules.activations == "gradient":
            return call(x)
        with torch.no_grad():
            value = call(x.detach()) if value is None else value.detach()
            small = torch.full((1,), 1e-4, dtype=x.dtype, device=x.device)
            slope = (value / x).masked_fill_(x == 0, (call(small) / small)[0])
        result = through(value, x, slope, own=value.data_ptr() != x.data_ptr())
        if self.rules.product == "detach_gate":
            self.gates.append(result)
        return result

    def softmax(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Take the pattern as given, or let the (tempered) gradient through."""
        if self.rules.softmax == "detach":
            return call(x.detach(), dim)
        if self.rules.temperature == 1:
            return call(x, dim)
        # The gradient of softmax(x / T) is taken at x / T and not divided by T.
        return through(call(x.detach(), dim), call(x / self.rules.temperature, dim), self.rules.temperature)

    def attention(
        self, call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Keep attention fused where its rules are multiples of its gradient."""
        if self.rules.linear == "supporters" or self.rules.temperature != 1:
            return None
        if self.rules.softmax == "detach":
            return self._stabilised(call(query.detach(), key.detach(), value, mask))
        if not (self.depends(query) and self.depends(key) and self.depends(value)):
            return None
        added = mask is not None and mask.is_floating_point()  # such as position biases
        mask = self.absorbed.constant(mask, self.stage) if added and mask is not None else mask
        if self.rules.product == "gradient":
            return call(query, key, value, mask)
        # Half of what the output gives goes to the values, half through the pattern, and of that half to each factor.
        mask = scaled(mask, 0.5) if added and mask is not None else mask
        return call(scaled(query, 0.25), scaled(key, 0.25), scaled(value, 0.5), mask)

    def logsumexp(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Keep the plain gradient: it belongs to the measure that is read."""
        return call(x, dim)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Share a norm as the linear function that it is at its own divisor."""
        bias = None if bias is None else self.absorbed.constant(bias, self.stage)
        if self.rules.norms == "gradient":
            return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
        factor = (x.detach().var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
        factor = factor if weight is None else factor * weight
        if self.rules.linear != "supporters":
            centred = (x - x.mean(-1, keepdim=True)) * factor
            return centred if bias is None else centred + bias
        up, down, size = x.clamp(min=0), x.clamp(max=0), x.shape[-1]
        positive = up - (up + down.sum(-1, keepdim=True) - down) / size
        negative = down - (down + up.sum(-1, keepdim=True) - up) / size
        centred = self._signed((x - x.mean(-1, keepdim=True)).detach(), positive, negative) * factor
        if bias is None:
            return centred
        parts = centred.clamp(min=0) + bias.clamp(min=0), centred.clamp(max=0) + bias.clamp(max=0)
        return self._signed((centred + bias).detach(), *parts)

    def _stabilised(self, value: torch.Tensor) -> torch.Tensor:
        epsilon = self.rules.epsilon
        if epsilon == 0:
            return value
        plain = value.detach()
        return _times(value, plain / (plain + torch.where(plain < 0, -epsilon, epsilon)))

    def _signed(self, value: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """Share a value among its positive and negative contributions, which sum to it."""
        if self.rules.linear == "alpha_beta":
            # A side without contributions leaves everything to the other.
            alpha = torch.where(negative == 0, 1.0, torch.where(positive == 0, 0.0, self.rules.alpha)).to(value.dtype)
            first = through(value, positive, alpha * _ratio(value, positive))
            return first + through(torch.zeros_like(value), negative, (1 - alpha) * _ratio(value, negative))
        same = torch.where(value > 0, positive, negative)
        source = same if self.rules.linear == "supporters" else positive + negative + self.rules.gamma * same
        return through(value, source, _ratio(value, source))


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def _half(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / 2


def _times(value: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """Return the value with its gradient scaled."""
    return through(value, value, factor)
