"""LXT 2.1: its rules for Llama, put into transformers' classes only while it runs, because ours share them.

Its packages are entered without their own `__init__`, which imports vision models that a build without torchvision
lacks, and its table of attention functions is given the look-up that this transformers asks for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers.models.llama import modeling_llama

from bench.jobs import as_array, no_gradients
from bench.models import Case
from bench.ways import Setting, Way, whole

PATCHED = ("eager_attention_forward", "ALL_ATTENTION_FUNCTIONS")


class Functions(dict[str, Any]):
    """LXT's attention functions by name."""

    def get_interface(self, name: str, default: Any) -> Any:
        """Return the function of a name, as transformers asks for it."""
        return self.get(name, default)


def rules() -> dict[Any, Any]:
    """Return LXT's own map from classes of transformers to the patches of AttnLRP."""
    found = importlib.util.find_spec("lxt")
    assert found is not None
    assert found.submodule_search_locations is not None
    for name in ("efficient", "efficient.models"):
        package = ModuleType(f"lxt.{name}")
        package.__path__ = [f"{found.submodule_search_locations[0]}/{name.replace('.', '/')}"]
        sys.modules.setdefault(package.__name__, package)
    return importlib.import_module("lxt.efficient.models.llama").attnLRP


@contextmanager
def patched() -> Iterator[None]:
    """Put LXT's rules in place, and transformers' own code back."""
    table = rules()
    classes = [target for target in table if isinstance(target, type)]
    own = [(target, "forward", target.forward) for target in classes]
    own += [(modeling_llama, name, getattr(modeling_llama, name)) for name in PATCHED]
    try:
        for target, patch in table.items():
            if not patch(target):
                raise RuntimeError(f"LXT did not patch {target}.")
        modeling_llama.ALL_ATTENTION_FUNCTIONS = Functions(modeling_llama.ALL_ATTENTION_FUNCTIONS)
        yield
    finally:
        for target, name, value in own:
            setattr(target, name, value)


def attn_lrp(setting: Setting) -> list[Way]:
    """One forward and one backward pass; the gradient times the embedding is the relevance."""
    model = no_gradients(setting.model)

    def run(case: Case, batch: int) -> np.ndarray:
        ids = torch.tensor([case.ids], device=setting.device)
        with patched():
            embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
            logits = model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1).logits
            (gradient,) = torch.autograd.grad(logits[0, -1, case.target], embeddings)
        return as_array((embeddings * gradient)[0].sum(-1))

    return [Way("one backward pass", run, timed_agree=whole)]
