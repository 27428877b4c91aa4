"""One forward pass looked at from outside: what every module was given and what it gave, for guessing a layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from pellucid.core.errors import LayoutError
from pellucid.models.hooks import Hook, hooked
from pellucid.models.layout import backbone
from pellucid.models.taps import first_input

IDS = (7, 11, 13, 17, 19)
OTHER = (8, *IDS[1:])


@dataclass
class Seen:
    """One module in one pass: its path in the backbone, when it ran, and copies of its hidden states in and out.

    `given_other` and `gave_other` come from a second prompt that differs in its first token only.
    """

    path: str
    module: Any
    order: int = -1
    given: torch.Tensor | None = None
    gave: torch.Tensor | None = None
    given_other: torch.Tensor | None = None
    gave_other: torch.Tensor | None = None
    reused: bool = False

    @property
    def projects(self) -> bool:
        """Return whether this is one matrix (a Linear or Conv1D, whatever its class)."""
        weight = getattr(self.module, "weight", None)
        ran = self.gave is not None and self.given is not None and self.given.is_floating_point()
        return ran and isinstance(weight, torch.Tensor) and weight.ndim == 2 and not list(self.module.children())

    @property
    def normalises(self) -> bool:
        """Return whether this looks like a norm: no matrix, no children, same shape out as in."""
        weight = getattr(self.module, "weight", None)
        small = weight is None or weight.ndim == 1
        named = "norm" in type(self.module).__name__.lower() or (isinstance(weight, torch.Tensor) and weight.ndim == 1)
        return (
            small and named and self.given is not None and self.gave is not None and self.given.shape == self.gave.shape
        )

    @property
    def local_input(self) -> bool:
        """Return whether later positions were given the same although the first token changed."""
        return self.given is not None and _same_after_first(self.given, self.given_other)

    @property
    def mixes(self) -> bool:
        """Return whether information moved between positions inside this module."""
        return self.local_input and self.gave is not None and not _same_after_first(self.gave, self.gave_other)


@dataclass
class Trace:
    """All modules of the backbone by path, the output of the model, and the module of each path that ran."""

    modules: dict[str, Seen]
    logits: torch.Tensor
    inputs: dict[str, Any] = field(default_factory=dict)

    def under(self, path: str) -> Iterator[Seen]:
        """Yield the modules below a path that ran, in order of their ends."""
        prefix = f"{path}." if path else ""
        found = [
            seen for name, seen in self.modules.items() if name.startswith(prefix) and name != path and seen.order >= 0
        ]
        yield from sorted(found, key=lambda seen: seen.order)


def close(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    """Return whether two hidden states are the same up to rounding, merged rows and positions allowed."""
    if first is None or second is None or first.numel() != second.numel() or first.shape[-1] != second.shape[-1]:
        return False
    if not first.is_floating_point() or not second.is_floating_point():
        return False
    eps = max(torch.finfo(first.dtype).eps, torch.finfo(second.dtype).eps)
    a, b = first.double().reshape(-1), second.double().reshape(-1)
    return float((a - b).abs().max()) <= 200 * eps * max(1e-3, float(a.abs().max()), float(b.abs().max()))


def _same_after_first(first: torch.Tensor, second: torch.Tensor | None) -> bool:
    if second is None or first.shape != second.shape:
        return False
    count = len(IDS)
    if first.numel() % count:
        return False
    a, b = (value.reshape(count, -1)[1:] for value in (first, second))
    return close(a, b)


def traced(model: Any) -> Trace:
    """Run the model on a short prompt, and on one with another first token, and return what its modules saw.

    Raises:
        LayoutError: the model does not run on token ids alone.
    """
    seen = {name: Seen(name, module) for name, module in backbone(model).named_modules()}
    logits = _run(model, seen, IDS, first=True)
    _run(model, seen, OTHER, first=False)
    return Trace(seen, logits)


def native(model: Any, ids: tuple[int, ...], **inputs: torch.Tensor) -> torch.Tensor:
    """Return the output of the model on bare token ids."""
    device = model.get_input_embeddings().weight.device
    limit = model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        raw = model(input_ids=torch.tensor([[i % limit for i in ids]], device=device), **inputs)
    logits: torch.Tensor = raw.logits if hasattr(raw, "logits") else raw.last_hidden_state
    return logits


def _run(model: Any, seen: dict[str, Seen], ids: tuple[int, ...], first: bool) -> torch.Tensor:
    later: list[tuple[Seen, torch.Tensor, int]] = []
    clock = iter(range(10**9))
    done: set[str] = set()

    def watch(entry: Seen) -> list[Hook]:
        def before(args: Any, kwargs: Any) -> Any:
            if entry.path not in done:
                try:
                    value = first_input(args, kwargs)[0].detach().clone()
                except LayoutError:
                    value = None
                if first:
                    entry.given = value
                else:
                    entry.given_other = value
            return args, kwargs

        def after(output: Any) -> Any:
            if entry.path not in done:
                done.add(entry.path)
                value = _first_tensor(output)
                if value is not None and first:
                    entry.gave, entry.order = value.detach().clone(), next(clock)
                    later.append((entry, value, value._version))
                elif value is not None:
                    entry.gave_other = value.detach().clone()
            return output

        return [Hook(entry.module, "input", before), Hook(entry.module, "output", after)]

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with hooked([hook for entry in seen.values() for hook in watch(entry)]):
            logits = native(model, ids)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise LayoutError(
            f"{type(model).__name__} could not be run on token ids to guess its layout: {error}"
        ) from error
    finally:
        for module in training:
            module.training = True
    for entry, value, version in later:
        entry.reused = value._version != version
    return logits


def _first_tensor(output: Any) -> torch.Tensor | None:
    value = output[0] if isinstance(output, tuple) and output else getattr(output, "last_hidden_state", output)
    return value if isinstance(value, torch.Tensor) else None
