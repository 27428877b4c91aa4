"""What lies around the blocks of a guessed layout: embedding, final norm, positions and readout."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch

from pellucid.models.layout import Layout
from pellucid.models.trace import IDS, Trace, close, native


def embedding(model: Any, trace: Trace) -> str:
    """Return the path of the token embedding, or "?"."""
    wanted = model.get_input_embeddings()
    return next((path for path, seen in trace.modules.items() if seen.module is wanted), "?")


def final_norm(trace: Trace, blocks: str) -> str:
    """Return the path of the norm that reads the last block, or ""."""
    count = len(trace.modules[blocks].module)
    last = trace.modules[f"{blocks}.{count - 1}"]
    after = [s for s in trace.under("") if s.order > last.order and s.normalises and close(s.given, last.gave)]
    return after[-1].path if after else ""


def with_ends(model: Any, trace: Trace, layout: Layout, head: str) -> Layout:
    """Settle how positions are counted and how the logits are scaled, by comparing numbers."""
    accepts = "position_ids" in inspect.signature(type(model).forward).parameters
    start, given = 0, False
    for first in (0, (getattr(model.config, "pad_token_id", None) or 0) + 1) if accepts else ():
        ids = torch.arange(first, first + len(IDS), device=trace.logits.device)[None]
        if not given and close(native(model, IDS, position_ids=ids), trace.logits):
            start, given = first, True
    scale, unembed = 1.0, model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    stack = layout.stacks[""]
    final = trace.modules[stack.final_norm or f"{stack.blocks}.{len(trace.modules[stack.blocks].module) - 1}"].gave
    if (
        head == "causal-lm"
        and unembed is not None
        and final is not None
        and not getattr(model.config, "final_logit_softcapping", None)
    ):
        readout, final = _readout(trace, final, unembed)
        with torch.no_grad():
            plain = unembed(final) if final is not None else trace.logits
        if not close(plain, trace.logits):
            scale = float((plain * trace.logits).sum() / (plain * plain).sum())
        layout = replace(layout, readout=readout, logit_scale=scale)
    return replace(layout, position_ids=given, position_start=start)


def _readout(trace: Trace, final: torch.Tensor, unembed: Any) -> tuple[str, torch.Tensor | None]:
    """Return the module between the final state and the unembedding, if any, and what the unembedding reads."""
    width = unembed.weight.shape[-1]
    if final.shape[-1] == width:
        return "", final
    between = [s for s in trace.under("") if close(s.given, final) and s.gave is not None and s.gave.shape[-1] == width]
    return (between[-1].path, between[-1].gave) if between else ("?", None)
