"""Causal tracing as its authors published it (Meng et al. 2022, arXiv:2202.05262), re-enacted from the paper.

For every place one forward pass of a clean row and all noisy rows; the clean row's value is copied into the others.
All logits are computed, as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.jobs import window_of
from bench.models import Case
from bench.peers.encoders import alti, decompx, globenc  # noqa: F401 - the ways of these jobs
from bench.ways import Setting, Way, whole

PART = 8  # one of so many places is run


def tracing(setting: Setting) -> list[Way]:
    """One pass for every layer and position."""
    blocks = setting.model.transformer.h if setting.shape.kind == "gpt2" else setting.model.model.layers
    layers, tokens = len(blocks), setting.sizes.tokens
    every = np.arange(0, layers * tokens, PART)

    def run(case: Case, batch: int) -> np.ndarray:
        return _loop(setting, blocks, case, np.arange(layers * len(case.ids))).reshape(layers, -1)

    return [
        Way(
            "published loop, re-enacted", run, lambda case, batch: _loop(setting, blocks, case, every),
            (layers * tokens + 1) / (len(every) + 1), f"{len(every)} of {layers * tokens} places",
            timed_agree=lambda ours, theirs: whole(ours.reshape(-1)[every], theirs),
        )
    ]  # fmt: skip


@torch.no_grad()
def _loop(setting: Setting, blocks: Any, case: Case, places: np.ndarray) -> np.ndarray:
    model, (first, last) = setting.model, case.sizes.subject
    ids = torch.tensor([case.ids], device=setting.device)
    answer = int(model(input_ids=ids).logits[0, -1].argmax())
    noise, rows = case.noise.to(setting.device), ids.expand(1 + len(case.noise), -1)

    def corrupt(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[1:, first:last] += noise
        return changed

    found = []
    for place in places:
        layer, position = divmod(int(place), len(case.ids))

        def restore(module: Any, args: Any, output: Any, position: int = position) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden.clone()
            hidden[1:, position] = hidden[0, position]
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        window = case.sizes.window
        targets = [blocks[layer]] if window == 1 else [blocks[i].mlp for i in window_of(layer, len(blocks), window)]
        handles = [model.get_input_embeddings().register_forward_hook(corrupt)]
        handles += [module.register_forward_hook(restore) for module in targets]
        try:
            logits = model(input_ids=rows).logits
        finally:
            for handle in handles:
                handle.remove()
        found.append(float(logits[1:, -1].softmax(-1)[:, answer].double().mean()))
    return np.array(found)


tracing_1 = tracing_10 = tracing
