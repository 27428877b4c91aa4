"""A subject's edits on the live model itself, so that Hugging Face `generate` and any other caller meets them.

Positions stay absolute in the unpadded sequence under a KV cache, left padding and beams: what a call covers is read
from its attention mask and from how much the cache holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import CapabilityError, EditError
from pellucid.models.attention import calls_changed
from pellucid.models.edits import Context, Edit, apply_edit
from pellucid.models.forward import OPENED
from pellucid.models.hooks import Hook, hooked
from pellucid.models.layout import Place, place
from pellucid.models.taps import first_input, rewrap, unview, unwrap, view

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@contextmanager
def live(subject: Subject, prompt_tokens: int | None = None) -> Iterator[Any]:
    """Let the native model act under the subject's edits until the context is left; yields that model.

    For example `with live(steered) as model: model.generate(**tokenizer(texts, return_tensors="pt", padding=True))`.
    Exact: the same logits as the subject gives under its edits. Call nothing of pellucid on the same model inside.

    Args:
        subject: a decoder; its edits, none inside attention, act.
        prompt_tokens: padded length of the prompts; needed for edits with a phase where `generate` runs without a
            cache. None takes what the first call of each generation is given.

    Raises:
        CapabilityError: a model that is no decoder.
        EditError: an edit inside attention, or a call whose positions cannot be known.
    """
    if subject.kind != "decoder":
        raise CapabilityError(
            f"Edits on the live model need a decoder, but {subject.name} is a {subject.kind}; use "
            "subject.with_ and the methods of pellucid."
        )
    clock, sites = _Clock(subject, prompt_tokens), dict[str, list[Edit]]()
    for edit in subject.edits:
        sites.setdefault(str(parse_site(edit.site)), []).append(edit)
    hooks, calls = [Hook(subject.model, "input", clock.enter)], []
    for name, edits in sites.items():
        site = parse_site(name)
        if site.part.rsplit(".", 1)[-1] in OPENED:
            raise EditError(
                f"The edit {edits[0].describe()!r} lies inside attention, which is not opened on a live model; run it "
                "with subject.with_."
            )
        at = place(subject.model, subject.need_layout(), site)
        if at.scope is not None:
            raise EditError(
                f"The edit {edits[0].describe()!r} lies in a module that the model calls again elsewhere, which is not "
                "told apart on a live model; run it with subject.with_."
            )
        change = _Change(clock, at, site, edits)
        if at.tap.call:
            calls.append((at.module, at.tap.call, change.changed))
        else:
            hooks.append(Hook(at.module, at.tap.side, change.on_input if at.tap.side == "input" else change.on_output))
    with subject.lock, hooked(hooks), calls_changed(calls):
        yield subject.model


@dataclass
class _Clock:
    """Where the present call stands: for each row its first absolute position, its padding, and its prompt's length."""

    subject: Subject
    prompt_tokens: int | None
    starts: list[int] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)

    def enter(self, args: Any, kwargs: Any) -> Any:
        """Read the positions of a call from its arguments."""
        named = list(inspect.signature(type(self.subject.model).forward).parameters)[1:]
        given = {**dict(zip(named, args, strict=False)), **kwargs}
        tokens = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
        if tokens is None:
            raise EditError("The live model was called without input_ids or inputs_embeds; give one of them.")
        rows, now = tokens.shape[:2]
        cache = given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = given.get("attention_mask")
        if mask is None:
            mask = torch.ones(rows, past + now)
        if mask.ndim != 2 or mask.shape[1] < past + now:
            raise EditError(
                f"The live model was called with an attention mask of shape {tuple(mask.shape)} for {past + now} "
                "tokens, so positions cannot be known; give a mask [rows, tokens]."
            )
        real = mask[:, : past + now].bool().cpu()
        offsets = [int(row.long().argmax()) if bool(row.any()) else past + now for row in real]
        if past == 0 or self.prompt_tokens is not None:
            end = past + now if self.prompt_tokens is None else min(self.prompt_tokens, past + now)
            self.prompts = [int(row[:end].sum()) for row in real]
        elif len(self.prompts) != rows:
            raise EditError(
                f"The live model was called with {past} tokens in its cache for {rows} rows, but their prompts were "
                "not seen; enter the context before the prompt runs."
            )
        self.places = [[c for c in range(now) if real[i, past + c]] for i in range(rows)]
        self.starts = [past - offset for offset in offsets]
        return args, kwargs


@dataclass
class _Change:
    """The hooks of one site."""

    clock: _Clock
    at: Place
    site: Site
    edits: list[Edit]

    def changed(self, raw: torch.Tensor) -> torch.Tensor:
        """Return a module's tensor with the edits made."""
        tap, heads = self.at.tap, self.at.stack.heads
        value = view(raw.clone() if tap.stream else raw, tap, heads, len(self.clock.starts))
        new = torch.stack([self._row(i, one) for i, one in enumerate(value.unbind(0))])
        return unview(raw, new, tap, heads)

    def on_input(self, args: Any, kwargs: Any) -> Any:
        """Change a module's input, and the stream that it is."""
        value, put = first_input(args, kwargs)
        new = self.changed(value)
        if self.at.tap.stream:
            value.copy_(new)
            return args, kwargs
        return put(new)

    def on_output(self, output: Any) -> Any:
        """Change a module's output."""
        new = self.changed(unwrap(output, self.at.tap.key))
        return rewrap(output, self.at.tap.key, new.clone() if self.at.tap.reused else new)

    def _row(self, row: int, value: torch.Tensor) -> torch.Tensor:
        columns, prompt = self.clock.places[row], self.clock.prompts[row]
        if not columns:
            return value
        index = torch.tensor(columns, device=value.device)
        first = self.clock.starts[row] + columns[0]
        for edit in self.edits:
            here = _moved(edit, first, len(columns), prompt)
            new = apply_edit(value[index], here, self.site, row, prompt, prompt) if here is not None else None
            value = value if new is None else value.index_put((index,), new)
        return value


def _moved(edit: Edit, first: int, count: int, prompt: int) -> Edit | None:
    """Return the edit for a stretch of positions, counted from its start, or None where it has no place there."""
    wanted: Any = edit.where.get("position")
    last = first + count
    if wanted is None:
        places = list(range(first, last))
    elif isinstance(wanted, slice):
        places = [p for p in range(*wanted.indices(last)) if p >= first]
    else:
        given = [wanted] if isinstance(wanted, int) else [int(p) for p in wanted]
        places = [p for p in (p if p >= 0 else prompt + p for p in given) if first <= p < last]
    if edit.phase == "prompt":
        places = [p for p in places if p < prompt]
    elif edit.phase == "generation":
        places = [p for p in places if p >= prompt + edit.first_step]
    if not places:
        return None
    how: Any = edit.how
    absolute = _absolute(how, tuple(places), last) if callable(how) else how
    where = {**edit.where, "position": [p - first for p in places]}
    return replace(edit, how=absolute, where=where, phase="all")


def _absolute(how: Callable[..., torch.Tensor], places: tuple[int, ...], length: int) -> Callable[..., torch.Tensor]:
    def act(value: torch.Tensor, context: Context) -> torch.Tensor:
        return how(value, Context(context.site, context.row, places, length))

    return act
