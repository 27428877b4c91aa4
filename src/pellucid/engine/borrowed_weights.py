"""A run with other values in the place of some weights, through which gradients flow to whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@contextmanager
def borrowed_weights(subject: Subject, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Put tensors in the place of parameters by name while the context is open; the parameters come back untouched.

    Exact; also when something raises. The subject's lock is held.
    """
    held: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    with subject.lock:
        try:
            for name, value in values.items():
                path, _, own = name.rpartition(".")
                module = subject.model.get_submodule(path)
                parameter = module._parameters.pop(own)
                assert parameter is not None
                held.append((module, own, parameter))
                # Beside the parameters, so that the module finds the tensor under the same name.
                module.__dict__[own] = value
            yield
        finally:
            for module, own, parameter in reversed(held):
                module.__dict__.pop(own, None)
                module._parameters[own] = parameter
