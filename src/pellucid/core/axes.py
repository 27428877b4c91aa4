"""The words of the project: names of axes and of sites, defined once.

A *site* is a named place inside a model where a value can be read or replaced. One-stack models use
`blocks.{l}.<part>`; encoder-decoders use `encoder.blocks.{l}.<part>` and `decoder.blocks.{l}.<part>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pellucid.core.errors import SiteError, did_you_mean

AXES: dict[str, str] = {
    "unit": "a part of the input: token, word, sentence, line, message or span",
    "other_unit": "a second input part, for interactions",
    "group": "a group of input parts: a node of a tree over them",
    "target": "a predicted token or class",
    "layer": "a block of the model, from 0",
    "head": "an attention head",
    "other_head": "a second attention head, for comparisons",
    "position": "a token position in the unpadded sequence, from 0",
    "query": "the position that attends",
    "key": "the position attended to",
    "neuron": "a hidden unit of a feed-forward layer",
    "dimension": "a component of a vector",
    "class": "an output class",
    "step": "a step of a path or a generation",
    "fraction": "a share of units removed or kept",
    "example": "an item of a data set",
    "method": "an explanation method",
    "part": "a named part of what is shared out, such as source and prefix",
}

BLOCK_SITES: dict[str, tuple[str, ...]] = {
    "resid_pre": ("position", "dimension"),
    "attn.q": ("position", "head", "dimension"),
    "attn.k": ("position", "head", "dimension"),
    "attn.q_rot": ("position", "head", "dimension"),
    "attn.k_rot": ("position", "head", "dimension"),
    "attn.v": ("position", "head", "dimension"),
    "attn.scores": ("head", "query", "key"),
    "attn.pattern": ("head", "query", "key"),
    "attn.z": ("position", "head", "dimension"),
    "attn.out_raw": ("position", "dimension"),
    "attn.out": ("position", "dimension"),
    "resid_mid": ("position", "dimension"),
    "mlp.gate": ("position", "neuron"),
    "mlp.up": ("position", "neuron"),
    "mlp.post": ("position", "neuron"),
    "mlp.out_raw": ("position", "dimension"),
    "mlp.out": ("position", "dimension"),
    "router": ("position", "neuron"),
    "resid_post": ("position", "dimension"),
}
CROSS_SITES: dict[str, tuple[str, ...]] = {
    name.replace("attn.", "cross_attn."): axes for name, axes in BLOCK_SITES.items() if name.startswith("attn.")
}
MODEL_SITES: dict[str, tuple[str, ...]] = {
    "embed.token": ("position", "dimension"),
    "embed": ("position", "dimension"),
    "final_norm": ("position", "dimension"),
    "logits": ("position", "target"),
}
PARTS: dict[str, tuple[str, ...]] = BLOCK_SITES | CROSS_SITES | MODEL_SITES

_SITE = re.compile(r"^(?:(?P<stack>encoder|decoder)\.)?(?:blocks\.(?P<layer>\d+)\.)?(?P<part>[a-z_.]+)$")


@dataclass(frozen=True)
class Site:
    """A parsed site name: stack ("", "encoder" or "decoder"), layer (None for model-wide sites) and part."""

    stack: str
    layer: int | None
    part: str

    def __str__(self) -> str:
        """Return the name in the project's notation."""
        block = "" if self.layer is None else f"blocks.{self.layer}."
        return (f"{self.stack}." if self.stack else "") + block + self.part

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the axes of the value at this site, batch left out."""
        return PARTS[self.part]


def parse_site(name: str | Site) -> Site:
    """Parse a site name such as `blocks.3.attn.z`; raise `SiteError` naming the closest known one."""
    return name if isinstance(name, Site) else _parsed(name)


@lru_cache(maxsize=4096)  # a sweep asks for the same few names a hundred thousand times
def _parsed(name: str) -> Site:
    match = _SITE.match(name)
    part = match["part"] if match else name.split(".")[-1]
    layer = int(match["layer"]) if match and match["layer"] is not None else None
    wanted = MODEL_SITES if layer is None else BLOCK_SITES | CROSS_SITES
    if match is None or part not in wanted:
        known = [*MODEL_SITES, *(f"blocks.{layer or 0}.{p}" for p in BLOCK_SITES | CROSS_SITES)]
        raise SiteError(f"The site {name!r} is unknown{did_you_mean(name, known) or '; see pellucid.core.axes.PARTS'}.")
    return Site(match["stack"] or "", layer, part)
