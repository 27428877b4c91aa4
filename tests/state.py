"""What an explanation must leave as it found it."""

from __future__ import annotations

from typing import Any


def model_state(model: Any) -> dict[str, Any]:
    """Describe weights, gradients, flags and hooks of a torch module, so that two descriptions can be compared."""
    hooks = {
        f"{name}.{kind}": tuple(getattr(module, kind))
        for name, module in model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        if getattr(module, kind)
    }
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "versions": {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()},
        "sums": {name: tensor.detach().double().sum().item() for name, tensor in tensors.items()},
        "gradients": {
            name: None if p.grad is None else p.grad.double().sum().item() for name, p in model.named_parameters()
        },
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "forwards": {name: vars(module).get("forward") for name, module in model.named_modules()},
        "hooks": hooks,
        "attention": getattr(getattr(model, "config", None), "_attn_implementation", None),
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name the parts in which two descriptions differ; NaN equals itself here."""
    return [part for part in before if str(before[part]) != str(after[part])]
