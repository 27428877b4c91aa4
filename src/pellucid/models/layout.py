"""A layout is data: where blocks, attention, feed-forward, norms and embeddings are on the native modules.

`models/layouts/` is the registry: each file names the `model_type`s it describes in MODEL_TYPES and has one function
`layout(model) -> Layout`. Paths in stacks are relative to the backbone (`model.base_model`), paths in block taps to
the block.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import LayoutError, SiteError
from pellucid.models.taps import Heads, Tap

Norm = Literal["pre", "post", "sandwich"]


@dataclass(frozen=True)
class Stack:
    """One stack of blocks: where they are and where each site of a block lives.

    `norm` is "pre" (x + f(norm(x))), "post" (norm(x + f(x))) or "sandwich" (x + norm(f(...)): the norm counts inside
    the contribution). `parallel` blocks add attention and feed-forward to the same input. `attention` and
    `cross_attention` are the modules that compute the pattern; `interface` says whether they go through transformers'
    attention interface. `mid_norm` and `last_norm` are, for post-norm blocks, the modules that normalise input +
    attention and mid + feed-forward. `some_layers` names parts that only some blocks have, as the router of a model
    that mixes dense and expert layers.

    `cross_norm` is the norm of post-norm blocks that stands between the two where there is cross attention. `resid_mid`
    is always what the feed-forward layer is given, so it follows the cross attention.

    Where blocks reuse modules, `shared` has for each block the path of its module below `blocks` and which of that
    module's calls the block is. `root` is the module of the whole stack: `embed_token` belongs to the stack only while
    that runs, since encoder and decoder may share it.
    """

    blocks: str
    taps: Mapping[str, Tap]
    attention: str
    heads: Heads
    embed_token: str
    cross_attention: str = ""
    interface: bool = True
    norm: Norm = "pre"
    parallel: bool = False
    final_norm: str = ""
    mid_norm: str = ""
    cross_norm: str = ""
    last_norm: str = ""
    shared: tuple[tuple[str, int], ...] = ()
    root: str = ""
    residual_scale: float = 1.0
    some_layers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Layout:
    """The layout of a whole model; `stacks` has the key "" for one-stack models, else "encoder" and "decoder".

    `readout` is the module between the final norm and the unembedding, where there is one (the projection of OPT-350m).
    """

    architecture: str
    stacks: Mapping[str, Stack]
    source: str = "row"
    position_ids: bool = True
    position_start: int = 0
    logit_scale: float = 1.0
    readout: str = ""
    notes: tuple[str, ...] = field(default=())


def heads_of(config: Any, query: int | None = None, key_value: int | None = None, width: int | None = None) -> Heads:
    """Read head counts from a config with the usual attribute names, unless given."""
    count: int = query or config.num_attention_heads
    shared: int = key_value or getattr(config, "num_key_value_heads", None) or count
    return Heads(count, shared, width or getattr(config, "head_dim", None) or config.hidden_size // count)


def submodule(root: torch.nn.Module, path: str) -> torch.nn.Module:
    """Return the module at a dotted path, negative list indices allowed; raise `LayoutError` naming what is missing."""
    module: Any = root
    for part in path.split(".") if path else []:
        if part.lstrip("-").isdigit():
            module = module[int(part)]
        elif hasattr(module, part):
            module = getattr(module, part)
        else:
            raise LayoutError(
                f"The layout names {path!r}, but {type(module).__name__} has no {part!r}; mend the row in "
                "models/layouts."
            )
    return module


def has_submodule(root: torch.nn.Module, path: str) -> bool:
    """Return whether a dotted path leads to a module."""
    try:
        return isinstance(submodule(root, path), torch.nn.Module)
    except (LayoutError, IndexError):
        return False


@functools.cache
def known_types() -> dict[str, str]:
    """Return which file describes which `model_type`, read from the sources without importing them."""
    found: dict[str, str] = {}
    for file in sorted((Path(__file__).parent / "layouts").glob("[!_]*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MODEL_TYPES":
                found.update(dict.fromkeys(ast.literal_eval(node.value), file.stem))
    return found


def row_layout(model: Any) -> Layout | None:
    """Return the layout of a model whose `model_type` has a row, else None."""
    stem = known_types().get(getattr(model.config, "model_type", ""))
    if stem is None:
        return None
    found: Layout = importlib.import_module(f"pellucid.models.layouts.{stem}").layout(model)
    return found


def backbone(model: Any) -> Any:
    """Return the stack of blocks under the head (the model itself when it has no head)."""
    return getattr(model, "base_model", model)


@dataclass(frozen=True)
class Scope:
    """One call of one module, counted from 0 within a run: a reused module is a site only inside it."""

    module: torch.nn.Module
    call: int = 0


@dataclass(frozen=True)
class Place:
    """A site found on the native modules: the module, its tap, the stack it belongs to and when the module counts."""

    module: torch.nn.Module
    tap: Tap
    stack: Stack
    site: Site
    scope: Scope | None = None


def stack_of(layout: Layout, site: Site) -> Stack:
    """Return the stack a site belongs to; raise `SiteError` where the name fits another kind of model."""
    if site.stack in layout.stacks:
        return layout.stacks[site.stack]
    if site.layer is None and site.part == "logits":
        return layout.stacks[main_stack(layout)]
    have = [f"{name}.blocks.N.{site.part}" if name else f"blocks.N.{site.part}" for name in layout.stacks]
    raise SiteError(
        f"The site {str(site)!r} does not fit {layout.architecture}, whose sites are named {' or '.join(have)}."
    )


def main_stack(layout: Layout) -> str:
    """Return the key of the stack that feeds the logits: "" or "decoder" (or "encoder" where that is all)."""
    return "" if "" in layout.stacks else "decoder" if "decoder" in layout.stacks else "encoder"


def depth(model: Any, layout: Layout, stack: str | None = None) -> int:
    """Return the number of blocks of a stack (default: the one that feeds the logits)."""
    chosen = layout.stacks[main_stack(layout) if stack is None else stack]
    if chosen.shared:
        return len(chosen.shared)
    return len(submodule(backbone(model), chosen.blocks))  # type: ignore[arg-type]


def block_of(model: Any, stack: Stack, layer: int) -> tuple[torch.nn.Module, Scope | None]:
    """Return the module of a block and, where blocks reuse modules, the call of it that is this block."""
    blocks = submodule(backbone(model), stack.blocks)
    if not stack.shared:
        return submodule(blocks, str(layer)), None
    path, call = stack.shared[layer]
    block = submodule(blocks, path)
    return block, Scope(block, call)


def place(model: Any, layout: Layout, site: Site) -> Place:
    """Find a site on the native modules.

    Raises:
        SiteError: the layer is out of range, or the model lacks the site (the message names an alternative).
    """
    stack = stack_of(layout, site)
    root = backbone(model)
    if site.part == "logits":
        return Place(model, Tap("", "output", key="logits"), stack, site)
    if site.part == "embed.token":
        scope = Scope(submodule(root, stack.root)) if stack.root else None
        return Place(submodule(root, stack.embed_token), Tap("", "output"), stack, site, scope)
    if site.part == "final_norm":
        if not stack.final_norm:
            raise SiteError(f"{layout.architecture} has no final norm; use the resid_post of its last block.")
        return Place(submodule(root, stack.final_norm), Tap("", "output"), stack, site)
    if site.part == "embed":
        block, scope = block_of(model, stack, 0)
        return Place(block, Tap("", "input"), stack, site, scope)
    assert site.layer is not None
    layers = depth(model, layout, site.stack)
    if not 0 <= site.layer < layers:
        raise SiteError(f"The site {str(site)!r} names layer {site.layer}, but the model has layers 0 to {layers - 1}.")
    tap = stack.taps.get(site.part)
    if tap is None:
        alternative = _alternative(stack, site.part)
        raise SiteError(f"{layout.architecture} has no site {site.part!r}{alternative}.")
    block, scope = block_of(model, stack, site.layer)
    if site.part in stack.some_layers and not has_submodule(block, tap.module):
        raise SiteError(
            f"Layer {site.layer} of {layout.architecture} has no site {site.part!r}, which other layers have; use "
            "mlp.out."
        )
    module = submodule(block, tap.module)
    return Place(module, tap, stack, site, Scope(module) if tap.once else scope)


def block_sites(model: Any, layout: Layout, stack: str, layer: int) -> list[str]:
    """Return the names of all sites of one block, attention steps included."""
    chosen = layout.stacks[stack]
    block, _ = block_of(model, chosen, layer)
    parts = [
        part for part, tap in chosen.taps.items() if part not in chosen.some_layers or has_submodule(block, tap.module)
    ]
    steps = ("q_rot", "k_rot", "scores", "pattern") if chosen.interface else ("scores", "pattern")
    kinds = ("attn", "cross_attn") if chosen.cross_attention else ("attn",)
    parts += [f"{kind}.{step}" for kind in kinds for step in steps]
    return [str(Site(stack, layer, part)) for part in parts]


def _alternative(stack: Stack, part: str) -> str:
    if part == "resid_mid" and stack.parallel:
        return " because its blocks add attention and feed-forward in parallel; use resid_pre or resid_post"
    if part.startswith("cross_attn"):
        return " because this stack attends to itself only; use attn in its place"
    if part == "mlp.gate":
        return " because its feed-forward layer has no gate; use mlp.up or mlp.post"
    if part in ("mlp.post", "mlp.up") and "router" in stack.taps:
        return " because its experts are computed jointly; use router or mlp.out"
    raw = part.removesuffix("_raw")
    if raw != part and raw in stack.taps:
        return f" because no norm follows the sub-layer; use {raw}"
    return f"; it has {', '.join(sorted(stack.taps))}"
