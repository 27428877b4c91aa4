"""What an edit of one site does to the others: which projection is q and which k, gate or up; where the stream flows.

Sums and shapes alone would accept a layout that swaps q with k, or a `resid_mid` whose edits miss the skip connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site
from pellucid.models.edits import Edit, EditFunction
from pellucid.models.forward import Output, Row, forward
from pellucid.models.layout import Stack, block_of, has_submodule, submodule

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Tolerance = Callable[[torch.Tensor, float], float]
Finding = tuple[str, float, float, str]


def mixing(output: Output, name: str, layer: int, tolerance: Tolerance) -> Finding:
    """Compare pattern × values with the head outputs in one layer; return name, figure, bar and detail of the proof."""
    worst, bar, detail = 0.0, 0.0, ""
    for i in range(len(output.lengths)):
        value, pattern, z = (
            output.row(str(Site(name, layer, part)), i).double() for part in ("attn.v", "attn.pattern", "attn.z")
        )
        value = value.repeat_interleave(max(1, pattern.shape[0] // value.shape[1]), 1)
        if (pattern.shape[2], pattern.shape[0]) != value.shape[:2] or value.shape[1:] != z.shape[1:]:
            return (
                "attention pattern x values = head outputs",
                1.0,
                0.0,
                f"values have the shape {tuple(value.shape)}, head outputs {tuple(z.shape)}",
            )
        worst = max(worst, float((torch.einsum("hqk,khd->qhd", pattern, value) - z).abs().max()))
        bar = max(bar, tolerance(output.row(str(Site(name, layer, "attn.z")), i), 200))
    if worst > bar:
        detail = "attn.v or attn.z is the wrong module, or its heads are laid out in another way"
    return "attention pattern x values = head outputs", worst, bar, detail


def reach(
    subject: Subject, row: Row, place: tuple[str, int], stack: Stack, shake: EditFunction, tolerance: Tolerance
) -> Iterator[Finding]:
    """Edit q, k, the stream and the up projection of one block (`place`: stack and layer) in the middle, and compare.

    Yields name, figure, bar and detail of each proof.
    """
    block, _ = block_of(subject.model, stack, place[1])
    site = {
        part: str(Site(*place, part))
        for part in ("attn.q", "attn.k", "attn.scores", "resid_mid", "mlp.up", "mlp.post", "mlp.out", "resid_post")
    }
    length = len(row.decoder_ids) if place[0] == "decoder" else len(row.ids)
    edits = {
        part: Edit(site[part], shake, where={"position": length // 2})
        for part in ("attn.q", "attn.k", "resid_mid")
        if part in stack.taps
    }
    gated = "mlp.gate" in stack.taps and has_submodule(block, stack.taps["mlp.gate"].module)
    if gated:
        edits["mlp.up"] = Edit(site["mlp.up"], "scale", 2.0)
    parts = [
        "attn.scores",
        *(["resid_mid", "mlp.out", "resid_post"] if "resid_mid" in edits else []),
        *(["mlp.post"] if gated else []),
    ]
    rows = [row, *(Row(row.ids, row.decoder_ids, edits=(edit,)) for edit in edits.values())]
    output = forward(subject, rows, capture=[site[part] for part in parts])
    number = {part: i for i, part in enumerate(edits, 1)}
    if "attn.q" in edits and "attn.k" in edits:
        plain, by_query, by_key = (output.row(site["attn.scores"], i) for i in (0, number["attn.q"], number["attn.k"]))
        yield _query_and_key(plain, by_query, by_key, length // 2, tolerance)
    if "resid_mid" in edits:
        mid, out, post = (output.row(site[p], number["resid_mid"]) for p in ("resid_mid", "mlp.out", "resid_post"))
        yield _flows(block, stack, mid, out, post, tolerance)
    if gated:
        plain, doubled = (output.row(site["mlp.post"], i) for i in (0, number["mlp.up"]))
        figure, bar = float((2 * plain - doubled).abs().max()), tolerance(doubled, 200)
        yield "mlp.post is proportional to mlp.up", figure, bar, "gate and up may be swapped" if figure > bar else ""


def _query_and_key(
    plain: torch.Tensor, query: torch.Tensor, key: torch.Tensor, middle: int, tolerance: Tolerance
) -> Finding:
    seen = plain > torch.finfo(plain.dtype).min / 4  # masked scores are huge, and differences between them mean nothing
    by_query, by_key = (((other - plain).abs().nan_to_num(0) * seen) for other in (query, key))
    bar = tolerance(plain[seen], 2000)
    moved = min(float(by_query[:, middle].max()), float(by_key[:, :, middle].max()))
    by_query[:, middle], by_key[:, :, middle] = 0, 0
    figure = max(float(by_query.max()), float(by_key.max())) if moved > tolerance(plain[seen], 1) else float("inf")
    detail = "the modules of q and k may be swapped, or their parts of a joint projection" if figure > bar else ""
    return "q moves its own row of the scores, k its own column", figure, bar, detail


def _flows(
    block: Any, stack: Stack, mid: torch.Tensor, out: torch.Tensor, post: torch.Tensor, tolerance: Tolerance
) -> Finding:
    total = submodule(block, stack.last_norm)(mid + out) if stack.norm == "post" else mid + stack.residual_scale * out
    figure, bar = float((total - post).abs().max()), tolerance(post, 200)
    detail = (
        "the tap of resid_mid is not the stream itself; mark it stream=True or tap another module"
        if figure > bar
        else ""
    )
    return "an edit of resid_mid flows into resid_post", figure, bar, detail
