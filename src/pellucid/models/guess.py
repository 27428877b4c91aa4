"""Guess the layout of an unknown architecture; the proofs decide whether a guess stands.

One short pass is traced (what every module was given and gave). Numbers, not names, find the parts: attention is where
information moves between positions; two contributions must add up to the output of a block; names only order the
possibilities.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from pellucid.core.errors import LayoutError, PellucidError
from pellucid.models.guess_ends import embedding, final_norm, with_ends
from pellucid.models.guess_row import row_text
from pellucid.models.layout import Layout, Stack, has_submodule
from pellucid.models.proofs import Proof, proofs
from pellucid.models.subject import Subject
from pellucid.models.taps import Heads, Tap
from pellucid.models.trace import Seen, Trace, close, traced

HEAD_COUNTS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
NAMES = {
    "q": r"(^|_)q(uery|ueries)?(_|$|\d)|query",
    "k": r"(^|_)k(ey|eys)?(_|$|\d)|key",
    "v": r"(^|_)v(al|alue|alues)?(_|$|\d)|val",
}
MOST = 100


@dataclass
class Draft:
    """What the trace of one block settles, by paths inside the block; `missing` says what it does not."""

    blocks: str
    attention: Seen | None = None
    merge: Seen | None = None
    attn_out: Seen | None = None
    mlp_out: Seen | None = None
    middle: Tap | None = None
    mid_norm: str = ""
    last_norm: str = ""
    scale: float = 1.0
    missing: list[str] = field(default_factory=list)


def guess_layout(model: Any, kind: str, head: str) -> Layout | None:
    """Return a guessed layout that passes every proof, or None where nothing like a stack of blocks is found.

    Args:
        model: a transformers model in any architecture with one stack of blocks.
        kind: "decoder" or "encoder"; encoder-decoders are not guessed.
        head: what sits on the stack: "causal-lm", "masked-lm", "classification" or "none".

    Raises:
        LayoutError: blocks were found, but no guess passed; the message carries the row to write.
    """
    if kind == "encoder-decoder":
        return None
    trace = traced(model)
    blocks = _blocks(trace)
    if not blocks:
        return None
    draft = _draft(model, trace, blocks)
    best: tuple[int, Layout, Proof] | None = None
    hopeless: set[Any] = set()
    for layout in itertools.islice(_candidates(model, trace, draft, head), MOST):
        stack = layout.stacks[""]
        if hopeless & {stack.interface, stack.heads}:
            continue
        passed, failed = _judge(Subject(model, None, layout, kind=kind, head=head, name="guess"))
        if failed is None:
            return layout
        if failed.name.endswith("sites can be read"):
            hopeless.add(stack.interface)
        if failed.name.endswith("shapes"):
            hopeless.add(stack.heads)
        if best is None or passed > best[0]:
            best = (passed, layout, failed)
    name = type(model).__name__
    if best is None:
        row = row_text(
            model,
            Layout(name, {"": Stack(blocks, _taps(draft, blocks), "?", Heads(0, 0, 0), embedding(model, trace))}),
            draft.missing,
        )
        raise LayoutError(
            f"The layout of {name} could not be guessed, since {' and '.join(draft.missing)} could not be found; "
            f"complete this row:\n\n{row}"
        )
    why = f"the proof {best[2].name!r} ({best[2].detail or f'{best[2].figure:.3g} against {best[2].bar:.3g}'})"
    raise LayoutError(
        f"The best guess of the layout of {name} failed {why}; mend this row:\n\n{row_text(model, best[1], [why])}"
    )


def _judge(subject: Subject) -> tuple[int, Proof | None]:
    passed = 0
    try:
        for proof in proofs(subject):
            if not proof.ok:
                return passed, proof
            passed += 1
    except (PellucidError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        return passed, Proof("the proofs can be run", 1, 0, False, str(error))
    return passed, None


def _blocks(trace: Trace) -> str:
    found = []
    for path, seen in trace.modules.items():
        if not isinstance(seen.module, torch.nn.ModuleList) or len(seen.module) == 0:
            continue
        blocks = [trace.modules[f"{path}.{i}"] for i in range(len(seen.module)) if f"{path}.{i}" in trace.modules]
        chain = [
            b.given is not None and b.gave is not None and b.given.ndim == 3 and b.given.shape == b.gave.shape
            for b in blocks
        ]
        if (
            len(blocks) == len(seen.module)
            and all(chain)
            and all(close(a.gave, b.given) for a, b in itertools.pairwise(blocks))
        ):
            found.append((len(blocks), -path.count("."), path))
    return max(found)[2] if found else ""


def _draft(model: Any, trace: Trace, blocks: str) -> Draft:
    draft, root = Draft(blocks), f"{blocks}.0"
    block, inner = trace.modules[root], list(trace.under(root))
    mixers = [s for s in inner if s.mixes]
    draft.attention = next((s for s in mixers if not any(o.path.startswith(f"{s.path}.") for o in mixers)), None)
    if draft.attention is None:
        draft.missing.append("the attention module")
        return draft
    draft.merge = next((s for s in inner if s.projects and not s.local_input), None)
    if draft.merge is None:
        draft.missing.append("the output projection of attention")
        return draft
    scales = dict.fromkeys(
        (1.0, *(float(v) for k, v in vars(model.config).items() if "resid" in k and isinstance(v, (int, float)) and v))
    )
    if not any(_sums(draft, block, inner, scale) for scale in scales) and not _post_norm(draft, block, inner):
        draft.missing.append("two modules whose outputs add up to the output of a block")
    return draft


def _outputs(block: Seen, inner: list[Seen]) -> list[Seen]:
    assert block.gave is not None
    return [
        s for s in inner if s.gave is not None and s.gave.is_floating_point() and s.gave.numel() == block.gave.numel()
    ]


def _pairs(draft: Draft, block: Seen, inner: list[Seen]) -> Iterator[tuple[Seen, Seen]]:
    assert draft.merge is not None
    assert draft.attention is not None
    outputs = _outputs(block, inner)
    within = f"{draft.attention.path}."
    outermost = sorted(outputs, key=lambda s: (s.path.count("."), s.order))
    for attn in (s for s in outputs if s.order >= draft.merge.order):
        for mlp in (s for s in outermost if s is not attn and s is not draft.merge and not s.path.startswith(within)):
            if not close(attn.gave, mlp.gave):
                yield attn, mlp


def _value(tensor: torch.Tensor | None, like: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    assert like is not None
    return tensor.reshape(like.shape)


def _sums(draft: Draft, block: Seen, inner: list[Seen], scale: float) -> bool:
    given = block.given
    assert given is not None
    for attn, mlp in _pairs(draft, block, inner):
        middle = given + scale * _value(attn.gave, given)
        if close(middle + scale * _value(mlp.gave, given), block.gave):
            draft.attn_out, draft.mlp_out, draft.scale = attn, mlp, scale
            reader = next((s for s in inner if close(s.given, middle)), None)
            if reader is not None and reader.given is not None:
                draft.middle = Tap(_inside(draft, reader), "input", flat=reader.given.ndim == 2, stream=True)
            return True
    return False


def _post_norm(draft: Draft, block: Seen, inner: list[Seen]) -> bool:
    given = block.given
    assert given is not None
    for attn, mlp in _pairs(draft, block, inner):
        first = next((s for s in inner if s.normalises and close(s.given, given + _value(attn.gave, given))), None)
        if first is None:
            continue
        total = _value(first.gave, given) + _value(mlp.gave, given)
        last = next((s for s in inner if s.normalises and close(s.given, total) and close(s.gave, block.gave)), None)
        if last is not None and first.gave is not None:
            draft.attn_out, draft.mlp_out = attn, mlp
            draft.mid_norm, draft.last_norm = _inside(draft, first), _inside(draft, last)
            draft.middle = Tap(draft.mid_norm, flat=first.gave.ndim == 2)
            return True
    return False


def _inside(draft: Draft, seen: Seen) -> str:
    return seen.path.removeprefix(f"{draft.blocks}.0").removeprefix(".")


def _taps(draft: Draft, blocks: str) -> dict[str, Tap]:
    taps = {"resid_pre": Tap("", "input")}
    if draft.merge is not None:
        taps["attn.z"] = Tap(_inside(draft, draft.merge), "input", heads="q")
    for part, seen in (("attn.out", draft.attn_out), ("mlp.out", draft.mlp_out)):
        if seen is not None and seen.gave is not None:
            taps[part] = Tap(_inside(draft, seen), flat=seen.gave.ndim == 2, reused=seen.reused)
    if draft.merge is not None and draft.attn_out is not None and not close(draft.merge.gave, draft.attn_out.gave):
        taps["attn.out_raw"] = Tap(_inside(draft, draft.merge))
    if draft.middle is not None:
        taps["resid_mid"] = draft.middle
    return taps | {"resid_post": Tap("")}


def _candidates(model: Any, trace: Trace, draft: Draft, head: str) -> Iterator[Layout]:
    if draft.missing or draft.attention is None or draft.attn_out is None:
        return
    taps = _taps(draft, draft.blocks)
    sources = [vars(sys.modules[base.__module__]) for base in type(draft.attention.module).__mro__]
    interfaces = (True, False) if any("ALL_ATTENTION_FUNCTIONS" in source for source in sources) else (False, True)
    projections = [s for s in trace.under(draft.attention.path) if s.projects and s.local_input]
    found = False
    for interface, (heads, qkv), mlp in itertools.product(
        interfaces, list(_query_key_value(model, draft, projections)), list(_neurons(trace, draft))
    ):
        found = True
        norm: Any = (
            "post" if draft.mid_norm else "sandwich" if "attn.out_raw" in taps or "mlp.out_raw" in mlp else "pre"
        )
        stack = Stack(
            blocks=draft.blocks,
            taps=taps | qkv | mlp,
            attention=_inside(draft, draft.attention),
            heads=heads,
            embed_token=embedding(model, trace),
            interface=interface,
            norm=norm,
            parallel=draft.middle is None,
            final_norm=final_norm(trace, draft.blocks),
            mid_norm=draft.mid_norm,
            last_norm=draft.last_norm,
            residual_scale=draft.scale,
            some_layers=_in_some(trace, draft, mlp),
        )
        yield with_ends(model, trace, Layout(type(model).__name__, {"": stack}, source="guess"), head)
    if not found:
        draft.missing.append("query, key and value")


def _in_some(trace: Trace, draft: Draft, taps: dict[str, Tap]) -> frozenset[str]:
    blocks = trace.modules[draft.blocks].module
    return frozenset(
        part for part, tap in taps.items() if not all(has_submodule(block, tap.module) for block in blocks)
    )


def _query_key_value(model: Any, draft: Draft, projections: list[Seen]) -> Iterator[tuple[Heads, dict[str, Tap]]]:
    assert draft.merge is not None
    assert draft.merge.given is not None
    assert draft.attention is not None
    merged = draft.merge.given.shape[-1]
    named = [getattr(model.config, name, None) for name in HEAD_COUNTS]
    counts = dict.fromkeys(
        n for n in (*named, *vars(draft.attention.module).values()) if type(n) is int and n > 0 and merged % n == 0
    )
    wide = [s for s in projections if s.gave is not None and s.gave.shape[-1] > merged]
    for count in counts:
        width = merged // count
        if len(wide) == 1:
            yield from _fused(draft, wide[0], count, width)
        for trio in _orders(projections):
            sizes = [s.gave.shape[-1] for s in trio if s.gave is not None]
            if (
                sizes[0] == merged
                and sizes[1] == sizes[2]
                and sizes[1] % width == 0
                and count % (sizes[1] // width) == 0
            ):
                heads = Heads(count, sizes[1] // width, width)
                yield (
                    heads,
                    {
                        f"attn.{part}": Tap(_inside(draft, s), heads="q" if part == "q" else "kv")
                        for part, s in zip("qkv", trio, strict=True)
                    },
                )


def _fused(draft: Draft, joint: Seen, count: int, width: int) -> Iterator[tuple[Heads, dict[str, Tap]]]:
    assert joint.gave is not None
    rest = joint.gave.shape[-1] - count * width
    if rest % (2 * width) or count % max(1, rest // (2 * width)):
        return
    heads = Heads(count, rest // (2 * width), width)
    forms = ("concat", "per_head", "interleaved") if heads.query == heads.key_value else ("concat", "by_group")
    for form in forms:
        fused: Any = form
        yield heads, {f"attn.{part}": Tap(_inside(draft, joint), fused=fused, part=part) for part in ("q", "k", "v")}  # type: ignore[arg-type]


def _orders(projections: list[Seen]) -> Iterator[tuple[Seen, ...]]:
    trios = list(itertools.permutations(projections, 3))

    def likeness(trio: tuple[Seen, ...]) -> int:
        return -sum(
            bool(re.search(NAMES[part], s.path.rsplit(".", 1)[-1].lower())) for part, s in zip("qkv", trio, strict=True)
        )

    yield from sorted(trios, key=likeness)


def _neurons(trace: Trace, draft: Draft) -> Iterator[dict[str, Tap]]:
    """Yield the feed-forward taps in each order of gate and up; without them where experts are computed jointly."""
    assert draft.attention is not None
    assert draft.mlp_out is not None
    assert draft.merge is not None
    within = f"{draft.attention.path}."
    matrices = [
        s
        for s in trace.under(f"{draft.blocks}.0")
        if s.projects and s is not draft.merge and not s.path.startswith(within) and s.order <= draft.mlp_out.order
    ]
    down = matrices[-1] if matrices else None
    if down is None or not (close(down.gave, draft.mlp_out.gave) or close(down.gave, draft.mlp_out.given)):
        yield {}
        return
    assert down.given is not None
    assert down.gave is not None
    taps = {"mlp.post": Tap(_inside(draft, down), "input", flat=down.given.ndim == 2)}
    if not close(down.gave, draft.mlp_out.gave):
        taps["mlp.out_raw"] = Tap(_inside(draft, down), flat=down.gave.ndim == 2)
    width, flat = down.given.shape[-1], down.given.ndim == 2
    ups = [s for s in matrices if s is not down and s.gave is not None and s.gave.shape[-1] == width]
    joint = [s for s in matrices if s is not down and s.gave is not None and s.gave.shape[-1] == 2 * width]
    if len(ups) == 2:
        for gate, up in sorted(itertools.permutations(ups, 2), key=lambda pair: "gate" not in pair[0].path.lower()):
            yield taps | {
                "mlp.gate": Tap(_inside(draft, gate), flat=flat),
                "mlp.up": Tap(_inside(draft, up), flat=flat),
            }
    elif len(ups) == 1:
        yield taps | {"mlp.up": Tap(_inside(draft, ups[0]), flat=flat)}
    elif len(joint) == 1:
        path = _inside(draft, joint[0])
        for first, second in (("mlp.gate", "mlp.up"), ("mlp.up", "mlp.gate")):
            yield taps | {
                first: Tap(path, fused="halves", part="gate", flat=flat),
                second: Tap(path, fused="halves", part="up", flat=flat),
            }
    else:
        yield taps
