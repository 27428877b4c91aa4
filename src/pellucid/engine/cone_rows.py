"""Runs that the causal cone departs from, and what runs parts of them anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.models.batch import Row
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import tail_hooks
from pellucid.models.hooks import Hook, hooked, parts_of
from pellucid.models.layout import block_of, depth, place, submodule
from pellucid.models.shared_past import Past
from pellucid.models.tails import Tail, continue_rows
from pellucid.models.taps import first_input, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Base:
    """The runs of one text that edits depart from; they differ by edits made before the first block.

    `streams` are the residual stream [runs, positions, dimension] before every block and at the end, `mixed` what each
    output projection of attention was given, `attention` what an attention module returned, `prompt` the length of the
    prompt without the continuation, `logits` [runs, wanted, vocabulary] what the runs end in.
    """

    ids: tuple[int, ...]
    prompt: int
    past: Past
    streams: tuple[torch.Tensor, ...]
    mixed: tuple[torch.Tensor, ...]
    attention: Any
    parts: int
    logits: torch.Tensor


def base_runs(
    subject: Subject, ids: tuple[int, ...], prompt: int, runs: Sequence[tuple[Edit, ...]], wanted: Sequence[int]
) -> Base:
    """Run the whole sequence once under each set of edits, and the subject's, and keep what further edits will need."""
    stack, blocks = subject.need_layout().stacks[""], blocks_of(subject)
    streams: dict[int, torch.Tensor] = {}
    mixed: dict[int, torch.Tensor] = {}
    kinds: list[Any] = []

    def before(kept: dict[int, torch.Tensor], layer: int) -> Any:
        def keep(args: Any, kwargs: Any) -> Any:
            kept[layer] = first_input(args, kwargs)[0].reshape(len(runs), len(ids), -1)
            return args, kwargs

        return keep

    def attended(output: Any) -> Any:
        kinds.append(output)
        return output

    def after(output: Any) -> Any:
        kinds.append(parts_of(output))
        streams[len(blocks)] = unwrap(output, 0)
        return output

    outs = [place(subject.model, subject.need_layout(), Site("", i, "attn.z")).module for i in range(len(blocks))]
    hooks = [
        *tail_hooks(subject, [Row(ids, prompt_length=prompt, edits=edits) for edits in runs]),
        *(Hook(block, "input", before(streams, layer)) for layer, block in enumerate(blocks)),
        *(Hook(module, "input", before(mixed, layer)) for layer, module in enumerate(outs)),
        Hook(submodule(blocks[-1], stack.attention), "output", attended),
        Hook(blocks[-1], "output", after),
    ]
    out: list[torch.Tensor] = []
    places = (torch.arange(len(runs)).repeat_interleave(len(wanted)), torch.tensor([*wanted] * len(runs)))
    tails, keep = [Tail(0, 0, ids)] * len(runs), range(len(runs))
    past = continue_rows(subject, None, tails, places, keep, out.append, [hooked(hooks)])
    assert past is not None
    layers = range(len(blocks))
    kept = tuple(streams[layer] for layer in (*layers, len(blocks)))
    ends = out[0].reshape(len(runs), len(wanted), -1)
    return Base(ids, prompt, past, kept, tuple(mixed[layer] for layer in layers), kinds[0], kinds[1], ends)


def run(
    subject: Subject,
    past: Past | None,
    tails: list[Tail],
    places: list[tuple[int, int]],
    inside: list[AbstractContextManager[None]],
    last: bool = False,
) -> torch.Tensor:
    """Run tails behind the base and return what the last block gives at the places (row, position in the row).

    Where `last`, nothing but these places is looked at in the last feed-forward layer.
    """
    out: list[torch.Tensor] = []
    wanted = (
        torch.tensor([row for row, _ in places], dtype=torch.long),
        torch.tensor([at for _, at in places], dtype=torch.long),
    )
    continue_rows(subject, past, tails, wanted, [], out.append, inside, last, head=False)
    return out[0] if out else torch.zeros(0)


def moved(edit: Edit, places: tuple[int, ...], prompt: int) -> Edit:
    """Return the edit for a row that holds only the positions `places` of the whole (all, for a slice)."""
    axis = parse_site(edit.site).axes.index("position")
    index = {p: i for i, p in enumerate(places)}
    given: Any = edit.where.get("position")
    where = dict(edit.where)
    if given is not None and not isinstance(given, slice):
        given = (given,) if isinstance(given, int) else given
        where["position"] = tuple(index[p if p >= 0 else prompt + p] for p in given)
    value, how = edit.value, edit.how
    if how == "patch_from" and isinstance(value, torch.Tensor):
        there = [p for p in places if p < value.shape[axis]]
        value = value.index_select(axis, torch.tensor(there, device=value.device))
    if callable(how):
        own = how

        def how(chosen: torch.Tensor, context: Context) -> torch.Tensor:
            back = tuple(places[p] for p in context.positions)
            return own(chosen, replace(context, positions=back, length=prompt))

    return Edit(edit.site, how, value, where, seed=edit.seed)


def at_some(edit: Edit, places: tuple[int, ...], prompt: int) -> Edit | None:
    """Return the edit for some of the positions that it names, counted from the start; None where that is not known."""
    axes, value, given = parse_site(edit.site).axes, edit.value, edit.where["position"]
    assert not isinstance(given, slice)
    named = [p if p >= 0 else prompt + p for p in ((given,) if isinstance(given, int) else given)]
    chosen = [i for i, p in enumerate(named) if p in places]
    if edit.how in ("set", "add", "scale"):
        axis = axes.index("position")
        if isinstance(value, torch.Tensor) and value.ndim >= len(axes):
            if value.ndim > len(axes) or value.shape[axis] != len(named):
                return None
            value = value.index_select(axis, torch.tensor(chosen, device=value.device))
    elif edit.how not in ("patch_from", "zero"):
        return None
    return replace(edit, value=value, where={**edit.where, "position": tuple(named[i] for i in chosen)})


def blocks_of(subject: Subject) -> list[torch.nn.Module]:
    """Return the blocks of a one-stack model in order."""
    layout = subject.need_layout()
    return [block_of(subject.model, layout.stacks[""], layer)[0] for layer in range(depth(subject.model, layout))]


def put_in(hidden: torch.Tensor) -> Any:
    """Return a hook function that puts other hidden states among a module's inputs."""

    def put(args: Any, kwargs: Any) -> Any:
        return first_input(args, kwargs)[1](hidden)

    return put
