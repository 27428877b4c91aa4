"""Read named sites of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import SiteError, did_you_mean
from pellucid.engine.variants import row, whole
from pellucid.models.forward import forward
from pellucid.models.layout import block_sites, depth, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@torch.no_grad()
def capture(subject: Subject, prompt: Any, sites: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the values at named sites for one prompt, batch left out.

    For example `blocks.3.attn.z` -> [position, head, dimension].

    Args:
        subject: the model; its edits are active.
        prompt: text, chat, token ids or `Tokens`.
        sites: site names; `blocks.*.resid_pre` stands for every layer.

    Raises:
        SiteError: a site that the model lacks.
    """
    tokens = prompt if hasattr(prompt, "pieces") else subject.encode(prompt)
    names = [name for site in sites for name in expand(subject, site)]
    output = forward(subject, [row(subject, tokens, whole(tokens))], capture=names)
    return {name: output.row(name, 0) for name in names}


def expand(subject: Subject, site: str) -> list[str]:
    """Return the site names that a pattern with `*` in place of the layer stands for."""
    if "*" not in site:
        return [str(parse_site(site))]
    stack = parse_site(site.replace("*", "0")).stack
    layout = subject.need_layout()
    return [
        site.replace("*", str(layer))
        for layer in range(depth(subject.model, layout, stack if stack in layout.stacks else None))
    ]


def part_name(subject: Subject, part: str) -> str:
    """Return a pattern over all layers for a block part such as `resid_pre`; raise `SiteError` for an unknown part."""
    layout = subject.need_layout()
    stack = main_stack(layout)
    if part.startswith(("blocks.", "encoder.", "decoder.")):
        return part
    if stack == "decoder" and not part.startswith("cross_attn"):
        stack = "encoder"  # the prompt is there; name decoder.blocks.*.… for the other
    known = [name.split(".0.", 1)[1] for name in block_sites(subject.model, layout, stack, 0)]
    if part not in known:
        raise SiteError(
            f"{layout.architecture} has no site {part!r}{did_you_mean(part, known) or '; it has ' + ', '.join(known)}."
        )
    return (f"{stack}." if stack else "") + f"blocks.*.{part}"
