"""Load-time proofs: a layout is believed only after the model itself has confirmed it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import EditError, LayoutError, PellucidError
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import Output, Row, forward
from pellucid.models.layout import Stack, backbone, block_of, block_sites, depth, main_stack, submodule
from pellucid.models.reach import mixing, reach

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Proof:
    """One thing the model confirmed or denied: a figure, its bar and what it means."""

    name: str
    figure: float
    bar: float
    ok: bool
    detail: str = ""


def prove(subject: Subject) -> list[Proof]:
    """Run all proofs and raise `LayoutError` at the first that fails, naming the row to mend."""
    done = []
    for proof in proofs(subject):
        done.append(proof)
        if not proof.ok:
            layout = subject.need_layout()
            raise LayoutError(
                f"The layout of {layout.architecture} ({layout.source}) failed the proof {proof.name!r}: "
                f"{proof.detail or proof.figure} "
                f"(figure {proof.figure:.3g}, bar {proof.bar:.3g}); mend its row in models/layouts or pass the "
                "right Layout."
            )
    return done


def proofs(subject: Subject) -> Iterator[Proof]:
    """Yield one Proof per property: shapes, attention, edits, residual sums, readout, padding."""
    with subject.lock, torch.no_grad():
        yield from _proofs(subject)


def _proofs(subject: Subject) -> Iterator[Proof]:
    rows = [probe(subject, 5), probe(subject, 3, start=3)]
    layout = subject.need_layout()
    for name, stack in layout.stacks.items():
        sites = block_sites(subject.model, layout, name, depth(subject.model, layout, name) - 1)
        try:
            plain = forward(subject, rows)
            output = forward(subject, rows, capture=[str(s) for s in _wanted(subject, name, stack)])
        except (PellucidError, RuntimeError, AttributeError, IndexError, TypeError, ValueError) as error:
            yield Proof(f"{name or 'blocks'}: sites can be read", 1, 0, False, str(error))
            return
        prefix = f"{name} " if name else ""
        yield _shapes(output, name, stack, prefix)
        yield _reading_changes_nothing(subject, plain, output, prefix)
        yield _pattern_sums(subject, output, name, prefix)
        yield from _residual(subject, output, name, stack, prefix)
        yield from _reach(subject, rows[0], output, name, prefix)
        sites += [
            str(Site(name, None, part))
            for part in ("embed.token", "embed", *(["final_norm"] if stack.final_norm else []))
        ]
        yield _edits_move(subject, rows[0], sites, prefix)
        yield _direction(subject, rows[0], name, prefix)
    yield _replayed(subject, rows[0])
    yield from _readout(subject, rows)
    yield _batching(subject, rows)


def probe(subject: Subject, length: int, start: int = 0) -> Row:
    """Return a short row of harmless token ids."""
    special = set(getattr(subject.tokenizer, "all_special_ids", None) or ()) | {subject.pad_id}
    ids = [i for i in range(start + 7, subject.vocabulary) if i not in special][:length]
    if len(ids) < length:  # a vocabulary that is tiny, or all special: any different ids do
        ids = [(start + i) % subject.vocabulary for i in range(length)]
    decoder = tuple(ids[:3]) if subject.kind == "encoder-decoder" else ()
    return Row(tuple(ids), decoder)


def _wanted(subject: Subject, name: str, stack: Stack) -> list[Site]:
    layers = depth(subject.model, subject.need_layout(), name)
    parts = [
        p
        for p in ("resid_pre", "attn.z", "attn.out", "cross_attn.out", "resid_mid", "mlp.out", "resid_post")
        if p in stack.taps
    ]
    sites = [Site(name, layer, part) for layer in range(layers) for part in parts]
    sites += [
        Site(name, layer, part)
        for layer in (0, layers - 1)
        for part in ("attn.pattern", "attn.v")
        if part != "attn.v" or part in stack.taps
    ]
    return [*sites, *([Site(name, None, "final_norm")] if stack.final_norm else [])]


def _eps(subject: Subject, *values: torch.Tensor) -> float:
    """Return the rounding of the coarsest type among weights and values: mixed models round as that does."""
    dtypes = {p.dtype for p in subject.model.parameters() if p.is_floating_point()} | {value.dtype for value in values}
    if getattr(subject.model.config, "_attn_implementation", "") == "eager":
        dtypes.add(torch.float32)  # most families round the softmax of eager attention to float32
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _tolerance(subject: Subject, value: torch.Tensor, factor: float = 200) -> float:
    # Half precision has so few digits that the same multiple of its rounding would let everything pass.
    eps = _eps(subject, value)
    return (factor if eps < 1e-5 else factor / 50) * eps * max(1.0, float(value.abs().max()))


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() - second.double()).abs().max())


def _shapes(output: Output, name: str, stack: Stack, prefix: str) -> Proof:
    z = output.row(str(Site(name, 0, "attn.z")), 0)
    pattern = output.row(str(Site(name, 0, "attn.pattern")), 0)
    width = output.row(str(Site(name, 0, "resid_pre")), 0).shape[-1]
    bad = 0
    bad += z.shape[1:] != (stack.heads.query, stack.heads.width)
    bad += pattern.shape[0] != stack.heads.query
    bad += output.row(str(Site(name, 0, "attn.out")), 0).shape[-1] != width
    bad += output.row(str(Site(name, 0, "mlp.out")), 0).shape[-1] != width
    return Proof(
        prefix + "shapes", bad, 0, bad == 0, "a site does not have the width or head count of the config" if bad else ""
    )


def _reading_changes_nothing(subject: Subject, plain: Output, opened: Output, prefix: str) -> Proof:
    figure, bar = _distance(plain.logits, opened.logits), _tolerance(subject, plain.logits, 2000)
    return Proof(prefix + "opened attention = native attention", figure, bar, figure <= bar)


def _pattern_sums(subject: Subject, output: Output, name: str, prefix: str) -> Proof:
    figure = 0.0
    for site in [s for s in output.captured if s.endswith("attn.pattern")]:
        for i in range(len(output.lengths)):
            pattern = output.row(site, i)
            figure = max(figure, float((pattern.double().sum(-1) - 1).abs().max()))
    eps = _eps(subject, *output.captured.values())
    bar = (50 if eps < 1e-5 else 4) * eps
    return Proof(prefix + "attention rows sum to 1", figure, bar, figure <= bar)


def _residual(subject: Subject, output: Output, name: str, stack: Stack, prefix: str) -> Iterator[Proof]:
    layers = depth(subject.model, subject.need_layout(), name)
    worst, bar, which = 0.0, 0.0, ""
    for layer in range(layers):
        for i in range(len(output.lengths)):
            value = {
                p: output.row(str(Site(name, layer, p)), i)
                for p in stack.taps
                if str(Site(name, layer, p)) in output.captured
            }
            for label, expected, found in _block_sums(stack, block_of(subject.model, stack, layer)[0], value):
                worst, which = max((worst, which), (_distance(expected, found), f"layer {layer} {label}"))
                bar = max(bar, _tolerance(subject, found))
            if layer + 1 < layers:
                gap = _distance(value["resid_post"], output.row(str(Site(name, layer + 1, "resid_pre")), i))
                worst, which = max((worst, which), (gap, f"resid_post of layer {layer} against resid_pre of the next"))
    kind = "norm(input + contribution)" if stack.norm == "post" else "input + contributions"
    yield Proof(prefix + f"each block's output = {kind}", worst, bar, worst <= bar, which if worst > bar else "")


def _block_sums(
    stack: Stack, block: Any, value: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    scale = stack.residual_scale
    after = value["resid_pre"] + scale * value["attn.out"]
    if stack.norm == "post":
        middle = submodule(block, stack.mid_norm)(after)
        if stack.cross_norm:
            middle = submodule(block, stack.cross_norm)(middle + value["cross_attn.out"])
        yield "resid_mid", middle, value["resid_mid"]
        yield "resid_post", submodule(block, stack.last_norm)(middle + value["mlp.out"]), value["resid_post"]
        return
    if "cross_attn.out" in value:
        after = after + value["cross_attn.out"]
    if "resid_mid" in value:
        yield "resid_mid", after, value["resid_mid"]
    yield "resid_post", after + scale * value["mlp.out"], value["resid_post"]


def _shake(value: torch.Tensor, context: Context) -> torch.Tensor:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    if context.site.part.endswith("pattern"):
        return torch.softmax(noise, -1)
    return value + noise * (value.abs().clamp(max=10).mean() + 1)  # masked scores are huge


def _reach(subject: Subject, row: Row, output: Output, name: str, prefix: str) -> Iterator[Proof]:
    layout = subject.need_layout()
    stack, last = layout.stacks[name], depth(subject.model, layout, name) - 1
    tolerance = functools.partial(_tolerance, subject)
    found = [mixing(output, name, layer, tolerance) for layer in sorted({0, last})] if "attn.v" in stack.taps else []
    for label, figure, bar, detail in (*found, *reach(subject, row, (name, last), stack, _shake, tolerance)):
        yield Proof(prefix + label, figure, bar, figure <= bar, detail)


def _edits_move(subject: Subject, row: Row, sites: list[str], prefix: str) -> Proof:
    rows = [row, *(Row(row.ids, row.decoder_ids, edits=(Edit(site, _shake),)) for site in sites)]
    try:
        logits = forward(subject, rows).logits
    except (EditError, RuntimeError) as error:
        return Proof(prefix + "an edit at each site moves the logits", 1, 0, False, str(error))
    moved = (logits[1:] - logits[:1]).abs().flatten(1).amax(1)
    still = [site for site, change in zip(sites, moved, strict=True) if not change > _tolerance(subject, logits, 1)]
    return Proof(prefix + "an edit at each site moves the logits", len(still), 0, not still, ", ".join(still))


def _direction(subject: Subject, row: Row, name: str, prefix: str) -> Proof:
    first, last = (
        Site(name, 0, "resid_pre"),
        Site(name, depth(subject.model, subject.need_layout(), name) - 1, "resid_post"),
    )
    edited = Row(row.ids, row.decoder_ids, edits=(Edit(str(first), _shake, where={"position": -1}),))
    output = forward(subject, [row, edited], capture=[str(last)])
    before = [output.row(str(last), i)[:-1] for i in (0, 1)]
    figure, bar = _distance(*before), _tolerance(subject, before[0], 200)
    if name == "decoder" or (name == "" and subject.kind == "decoder"):
        return Proof(prefix + "attention looks backwards only", figure, bar, figure <= bar)
    bar = _tolerance(subject, before[0], 1)
    return Proof(prefix + "attention looks both ways", figure, bar, figure > bar, "it has to be above the bar")


def _replayed(subject: Subject, row: Row) -> Proof:
    layout = subject.need_layout()
    name = main_stack(layout)
    site = str(Site(name, depth(subject.model, layout, name) - 1, "resid_post"))
    other = Row(row.ids[::-1], row.decoder_ids[::-1])
    given = forward(subject, [other], capture=[site])
    edit = Edit(site, "patch_from", given.row(site, 0))
    found = forward(subject, [Row(row.ids, row.decoder_ids, edits=(edit,))]).logits
    figure, bar = _distance(found, given.logits), _tolerance(subject, found)
    return Proof("the final residual decides the output", figure, bar, figure <= bar)


def _readout(subject: Subject, rows: list[Row]) -> Iterator[Proof]:
    layout = subject.need_layout()
    unembed = subject.model.get_output_embeddings() if hasattr(subject.model, "get_output_embeddings") else None
    name = main_stack(layout)
    stack = layout.stacks[name]
    last = str(Site(name, depth(subject.model, layout, name) - 1, "resid_post"))
    site = str(Site(name, None, "final_norm")) if stack.final_norm else last
    output = forward(subject, rows, capture=[site, last])
    if stack.final_norm:
        norm = submodule(backbone(subject.model), stack.final_norm)
        worst = max(_distance(norm(output.row(last, i)), output.row(site, i)) for i in range(len(rows)))
        bar = _tolerance(subject, output.captured[site])
        yield Proof("final norm = norm(final residual)", worst, bar, worst <= bar)
    if subject.head == "none":
        worst, bar = _distance(output.captured[site], output.logits), _tolerance(subject, output.logits)
        yield Proof(f"{'final norm' if stack.final_norm else 'final residual'} = output", worst, bar, worst <= bar)
    if subject.head != "causal-lm" or unembed is None:
        return
    final = output.captured[site]
    final = submodule(backbone(subject.model), layout.readout)(final) if layout.readout else final
    logits = unembed(final * layout.logit_scale)
    bias = getattr(subject.model, "final_logits_bias", None)
    logits = logits + bias if bias is not None else logits
    cap = getattr(subject.model.config, "final_logit_softcapping", None)
    logits = torch.tanh(logits / cap) * cap if cap else logits
    worst, bar = _distance(logits, output.logits), _tolerance(subject, output.logits)
    yield Proof(
        f"unembedding({'final norm' if stack.final_norm else 'final residual'}) = logits", worst, bar, worst <= bar
    )


def _batching(subject: Subject, rows: list[Row]) -> Proof:
    # Encoders pool at a fixed place and count positions from the padded start, so only decoders can be padded on
    # the left.
    sides: tuple[Literal["right", "left"], ...] = ("right", "left") if subject.kind == "decoder" else ("right",)
    together = {side: forward(subject, rows, padding=side) for side in sides}
    worst, bar = 0.0, 0.0
    for i, row in enumerate(rows):
        alone = forward(subject, [row]).logits[0]
        bar = max(bar, _tolerance(subject, alone, 2000))
        for output in together.values():
            found = output.logits[i][: len(alone)] if alone.ndim == 2 else output.logits[i]
            worst = max(worst, _distance(alone, found))
    return Proof(f"a batch padded {' or '.join(sides)} = one by one", worst, bar, worst <= bar)
