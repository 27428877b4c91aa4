"""The text of a layout row, ready to be edited: what was found, and a question mark for what was not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pellucid.models.layout import Layout, Stack
from pellucid.models.taps import Tap

NEEDED = (
    "resid_pre",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.z",
    "attn.out",
    "resid_mid",
    "mlp.up",
    "mlp.post",
    "mlp.out",
    "resid_post",
)


def row_text(model: Any, layout: Layout, missing: list[str]) -> str:
    """Return a layout file as text: a `MODEL_TYPES` line and a `layout` function, with what is missing on top."""
    stack = next(iter(layout.stacks.values()))
    taps = [
        f'            "{part}": {_call(stack.taps[part]) if part in stack.taps else "?"},' for part in _parts(stack)
    ]
    options = [
        f"        {name}={getattr(stack, name)!r},"
        for name in (
            "blocks",
            "attention",
            "heads",
            "embed_token",
            "interface",
            "norm",
            "parallel",
            "final_norm",
            "mid_norm",
            "last_norm",
        )
    ]
    whole = [f"{name}={getattr(layout, name)!r}" for name in ("position_ids", "position_start", "logit_scale")]
    lines = [
        *(f"# To be settled: {what}" for what in missing),
        f"MODEL_TYPES = ({model.config.model_type!r},)",
        "",
        "def layout(model):",
        '    return Layout(type(model).__name__, {"": Stack(',
        *options,
        "        taps={",
        *taps,
        "        },",
        f"    )}}, {', '.join(whole)})",
    ]
    return "\n".join(lines)


def _parts(stack: Stack) -> list[str]:
    return [*NEEDED, *(part for part in stack.taps if part not in NEEDED)]


def _call(tap: Tap) -> str:
    given = [
        f"{f.name}={getattr(tap, f.name)!r}"
        for f in fields(tap)
        if f.name != "module" and getattr(tap, f.name) != f.default
    ]
    return f"Tap({', '.join([repr(tap.module), *given])})"
