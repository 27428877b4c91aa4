"""nnsight 0.8.1: the sweep of its patching tutorial with 32 invokes to a trace, which it runs as one batch."""

from __future__ import annotations

from typing import Any

import nnsight
import numpy as np
import torch
from nnsight import TransformersModel

from bench.jobs import as_array, no_gradients
from bench.models import Case
from bench.ways import Setting, Way, whole

INVOKES = 32


def residual_patching(setting: Setting) -> list[Way]:
    """The stream before each block, one position at a time."""
    return [_way(setting, heads=False, one_of=12)]


def head_patching(setting: Setting) -> list[Way]:
    """The input of each output projection, one head's columns at a time."""
    return [_way(setting, heads=True, one_of=4)]


def _way(setting: Setting, heads: bool, one_of: int) -> Way:
    model: Any = TransformersModel(no_gradients(setting.model), tokenizer=setting.tokenizer)
    blocks = model.transformer.h if setting.shape.kind == "gpt2" else model.model.layers
    width = setting.shape.width // setting.shape.heads

    def site(layer: int) -> Any:
        block = blocks[layer]
        if not heads:
            return block
        return block.attn.c_proj if setting.shape.kind == "gpt2" else block.self_attn.o_proj

    def sweep(case: Case, layers: range) -> np.ndarray:
        clean, corrupt = (torch.tensor([ids], device=setting.device) for ids in (case.ids, case.other))
        places = setting.shape.heads if heads else len(case.ids)
        with torch.no_grad():
            with model.trace(clean):
                kept = nnsight.save([])
                for layer in layers:
                    kept.append(site(layer).input)
            with model.trace(corrupt):
                start = (model.output.logits[0, -1, case.target] - model.output.logits[0, -1, case.contrast]).save()
            rows = [
                _traced(model, site(layer), corrupt, kept[i], range(first, min(first + INVOKES, places)), case, width)
                for i, layer in enumerate(layers)
                for first in range(0, places, INVOKES)
            ]
        return as_array(torch.cat(rows) - start).reshape(len(layers), places)

    def _traced(
        model: Any, module: Any, corrupt: torch.Tensor, value: torch.Tensor, places: range, case: Case, width: int
    ) -> torch.Tensor:
        with model.trace() as tracer:
            found = nnsight.save([])
            for place in places:
                with tracer.invoke(corrupt):
                    if heads:
                        columns = slice(place * width, (place + 1) * width)
                        module.input[:, :, columns] = value[:, :, columns]
                    else:
                        module.input[:, place] = value[:, place]
                    logits = model.output.logits
                    found.append(logits[0, -1, case.target] - logits[0, -1, case.contrast])
        return torch.stack(list(found))

    count = setting.shape.layers
    some = range(count // 2, count // 2 + max(1, count // one_of))
    places = setting.shape.heads if heads else setting.sizes.tokens
    return Way(
        f"{min(INVOKES, places)} invokes to a trace", lambda case, batch: sweep(case, range(count)),
        lambda case, batch: sweep(case, some), (count * places + 2) / (len(some) * places + 2),
        f"{len(some)} of {count} layers",
        timed_agree=lambda ours, theirs: whole(ours[some.start : some.stop], theirs),
    )  # fmt: skip
