"""The weights of a live model, whatever holds them: plain, quantised, offloaded or with adapters on top."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

PLAIN = (torch.Tensor, torch.nn.Parameter)


def lacking(model: Any) -> frozenset[str]:
    """Return the capabilities that the storage of the weights takes away.

    "weights" goes where a module's `weight` is not the matrix that it multiplies by: quantised, offloaded, or below
    an adapter that is not merged. "gradients" goes where the products are not differentiable (torch's own packed
    integer modules).
    """
    missing: set[str] = set()
    for module in model.modules():
        if is_packed(module):
            missing |= {"weights", "gradients"}
        if _adapter(module) is not None and not getattr(module, "merged", False):
            missing.add("weights")
    for parameter in model.parameters():
        if type(parameter) not in PLAIN or not parameter.is_floating_point() or parameter.device.type == "meta":
            missing.add("weights")
    return frozenset(missing)


def state(model: Any) -> tuple[Any, ...]:
    """Return storage and version of every weight and which adapters act: it changes whenever the output may."""
    tensors = [(part.data_ptr(), part._version) for parameter in model.parameters() for part in plain(parameter)]
    return (*tensors, *adapters(model))


def fingerprint(model: Any) -> str:
    """Return a hash of the weights: names, shapes, dtypes and up to 4096 evenly spaced values of each.

    Offloaded weights count by name and shape alone, because reading them all back would take as long as a run.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        for tensor in plain(value):
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            if tensor.device.type != "meta":
                flat = (tensor.int_repr() if tensor.is_quantized else tensor).detach().reshape(-1)
                some = flat[:: max(1, flat.numel() // 4096)].cpu()
                digest.update((some.float() if some.is_floating_point() else some.to(torch.int64)).numpy().tobytes())
    digest.update(repr(adapters(model)).encode())
    return digest.hexdigest()[:16]


def first_not_finite(model: Any) -> str | None:
    """Return the name of the first weight that holds NaN or infinite values, offloaded weights left out, or None."""
    for name, parameter in model.named_parameters():
        for tensor in plain(parameter):
            if (
                tensor.device.type != "meta"
                and tensor.is_floating_point()
                and not bool(torch.isfinite(tensor.detach()).all())
            ):
                return str(name)
    return None


def adapters(model: Any) -> list[tuple[Any, ...]]:
    """Return what each adapter layer of peft does now: names, whether disabled or merged, scales."""
    return [found for module in model.modules() if (found := _adapter(module)) is not None]


def plain(value: Any) -> Iterator[torch.Tensor]:
    """Yield the plain tensors inside a value: itself, or the parts of a quantised tensor."""
    if not isinstance(value, torch.Tensor):
        return
    if type(value) not in PLAIN and hasattr(value, "__tensor_flatten__"):
        flatten: Any = value.__tensor_flatten__  # type: ignore[attr-defined]
        for part in flatten()[0]:
            yield from plain(getattr(value, part))
    else:
        yield value


def is_packed(module: Any) -> bool:
    """Return whether a module holds its weights packed for torch's integer products."""
    return "_packed_params" in module._modules or "_packed_params" in vars(module)


def _adapter(module: Any) -> tuple[Any, ...] | None:
    """Return what an adapter layer of peft does now: names, whether disabled or merged, scales; None elsewhere."""
    if "base_layer" not in module._modules or not hasattr(module, "active_adapters"):
        return None
    names = tuple(module.active_adapters)
    scaling = getattr(module, "scaling", {})
    return (
        names,
        bool(module.disable_adapters),
        bool(getattr(module, "merged", False)),
        tuple(float(scaling.get(n, 1.0)) for n in names),
    )
