"""One padded batch through the native model, with values read and replaced on the way.

Everything that runs a model goes through `forward`. Rows are padded on the right, where a causal model cannot see
the padding; `padding="left"` exists to prove that the side does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import EditError, ResourceError, SiteError
from pellucid.models.attention import Change, calls_changed, opened
from pellucid.models.batch import Batch, Row, evaluating
from pellucid.models.edits import Edit, apply_edit
from pellucid.models.hooks import Hook, acting, hooked
from pellucid.models.kernels import fast
from pellucid.models.last_block import at_places
from pellucid.models.layout import Place, Scope, block_of, place, submodule
from pellucid.models.pooling import pooled
from pellucid.models.taps import first_input, rewrap, unview, unwrap, view

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

OPENED = ("q_rot", "k_rot", "scores", "pattern")


@dataclass
class Output:
    """What a batch gave.

    `logits` are [rows, positions, vocabulary], or [rows, classes], or hidden states for models without a head;
    `captured` holds values by site name, padded, [rows, positions, ...].
    """

    logits: torch.Tensor
    captured: dict[str, torch.Tensor]
    lengths: list[int]
    decoder_lengths: list[int]
    offsets: list[int]

    def row(self, site: str, index: int) -> torch.Tensor:
        """Return the captured value of one row without padding."""
        parsed = parse_site(site)
        lengths = self.decoder_lengths if parsed.stack == "decoder" else self.lengths
        keys = self.lengths if parsed.part.startswith("cross_attn") else lengths
        return _unpad(self.captured[site][index], parsed, lengths[index], keys[index], self.offsets[index])


def forward(
    subject: Subject,
    rows: Sequence[Row],
    *,
    capture: Sequence[str] = (),
    grad: bool = False,
    padding: Literal["right", "left"] = "right",
    wanted: torch.Tensor | None = None,
    ends: torch.Tensor | None = None,
    stop: bool = False,
) -> Output:
    """Run one batch of rows, applying the subject's edits and each row's own, and capture the named sites.

    Args:
        subject: the model to run; its edits come before the rows' edits at the same site.
        rows: the inputs, of any lengths.
        capture: names of sites to return, after all edits.
        grad: keep the graph, so that captured values and edit values can be differentiated.
        padding: side of the padding; the result does not depend on it.
        wanted: positions [rows, n] whose logits are needed: only these rows go through the unembedding, and `logits`
            is [rows, n, vocabulary].
        ends: positions [rows, n] that alone are read behind the last attention, so that its block does no more than
            these; whether that holds for a model is to be proved on it.
        stop: end the run once everything in `capture` was seen; `logits` are then empty and no forward is counted.

    Raises:
        EditError: an edit never fired, raised, or gave a wrong shape.
        ResourceError: memory ran out.
    """
    batch = Batch(subject, rows, padding)
    # Offloaded modules put their weights back after they ran, so such a model runs to its end.
    taps = _Taps(subject, batch, capture, stop=stop and not hasattr(subject.model, "hf_device_map"))
    narrow = _narrowed(subject, batch, wanted, capture)
    with subject.lock, ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.enter_context(evaluating(subject.model))
        stack.enter_context(fast(subject.model))
        stack.enter_context(acting({} if ends is None else at_places(subject, ends)))
        stack.enter_context(opened(subject.model, taps.visits, taps.interface))
        stack.enter_context(hooked([*taps.hooks, *narrow]))
        stack.enter_context(calls_changed(taps.calls))
        if subject.kind == "decoder" and subject.head == "classification":
            stack.enter_context(pooled(subject.model, [row.ids for row in rows], batch.offsets))
        try:
            raw = _called(subject, batch)
        except _Seen:
            return Output(torch.empty(0), taps.captured, batch.lengths, batch.decoder_lengths, batch.offsets)
    taps.check_fired()
    subject.count(forwards=len(rows))
    logits = raw.logits if hasattr(raw, "logits") else raw.last_hidden_state
    if wanted is not None and not narrow:
        logits = logits[torch.arange(len(rows), device=logits.device)[:, None], wanted.to(logits.device)]
    elif logits.ndim == 3 and wanted is None:
        lengths = batch.decoder_lengths if subject.kind == "encoder-decoder" else batch.lengths
        logits = _left_aligned(logits, batch.offsets, lengths)
    return Output(logits, taps.captured, batch.lengths, batch.decoder_lengths, batch.offsets)


def _called(subject: Subject, batch: Batch) -> Any:
    """Run the native forward; raise `ResourceError` where memory runs out."""
    try:
        return subject.model(**batch.inputs)
    except (RuntimeError, MemoryError) as error:
        words = ("not enough memory", "can't allocate memory", "CUDA out of memory")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words):
            raise ResourceError(
                f"The model ran out of memory on {len(batch.rows)} rows of {max(batch.lengths)} tokens; use a smaller "
                "batch."
            ) from error
        raise


class _Seen(Exception):
    """Everything that was asked for was captured."""


def _narrowed(subject: Subject, batch: Batch, wanted: torch.Tensor | None, capture: Sequence[str]) -> list[Hook]:
    """Return the hook that sends only the wanted rows through the unembedding, or none where that would be seen."""
    module = subject.model.get_output_embeddings() if hasattr(subject.model, "get_output_embeddings") else None
    seen = any(parse_site(e.site).part == "logits" for row in batch.rows for e in (*subject.edits, *row.edits))
    if wanted is None or module is None or seen or "logits" in capture or any(batch.offsets):
        return []

    def pick(args: Any, kwargs: Any) -> Any:
        value, put = first_input(args, kwargs)
        index = wanted.to(value.device)
        return put(value[torch.arange(len(value), device=value.device)[:, None], index])

    return [Hook(module, "input", pick)]


def _left_aligned(values: torch.Tensor, offsets: list[int], lengths: list[int]) -> torch.Tensor:
    if not any(offsets):
        return values
    return torch.stack([values[i].roll(-offset, 0) for i, offset in enumerate(offsets)])


@dataclass(eq=False)
class _Run:
    """Counts the calls of a reused module, and is open during the one that is meant."""

    scope: Scope
    calls: int = 0
    open: bool = False

    def enter(self, args: Any, kwargs: Any) -> Any:
        self.open = self.calls == self.scope.call
        self.calls += 1
        return args, kwargs

    def leave(self, output: Any) -> Any:
        self.open = False
        return output


@dataclass
class _Taps:
    """The hooks and attention visitors that a batch needs, what they captured and which edits fired."""

    subject: Subject
    batch: Batch
    capture: Sequence[str]
    stop: bool = False
    captured: dict[str, torch.Tensor] = field(default_factory=dict)
    hooks: list[Hook] = field(default_factory=list)
    calls: list[tuple[torch.nn.Module, str, Change]] = field(default_factory=list)
    visits: dict[torch.nn.Module, Callable[[str, torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    interface: bool = True
    runs: dict[str, _Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort edits and captures by site and build one hook for each."""
        self.pending: dict[tuple[int, int], Edit] = {}
        by_site: dict[str, list[tuple[int, Edit]]] = {str(parse_site(name)): [] for name in self.capture}
        for i, row in enumerate(self.batch.rows):
            for edit in (*self.subject.edits, *row.edits):
                by_site.setdefault(str(parse_site(edit.site)), []).append((i, edit))
                if edit.phase != "generation":  # a row may end before the first step that a generation edit asks for
                    self.pending[i, id(edit)] = edit
        visited: dict[torch.nn.Module, dict[str, list[tuple[str, list[tuple[int, Edit]]]]]] = {}
        for name, edits in by_site.items():
            site = parse_site(name)
            step = site.part.rsplit(".", 1)[-1]
            if step in OPENED:
                module, self.interface, scope = _attention_module(self.subject, site)
                self._runs(name, scope)
                visited.setdefault(module, {}).setdefault(step, []).append((name, edits))
            else:
                self._add(place(self.subject.model, self.subject.need_layout(), site), name, edits)
        for module, steps in visited.items():
            self.visits[module] = self._visit(steps)
        runs = set(self.runs.values())
        # A scope opens before and closes after every hook on the same module.
        self.hooks = [
            *(Hook(run.scope.module, "input", run.enter) for run in runs),
            *self.hooks,
            *(Hook(run.scope.module, "output", run.leave) for run in runs),
        ]

    def _runs(self, name: str, scope: Scope | None) -> None:
        if scope is not None:
            same = (run for run in self.runs.values() if run.scope == scope)
            self.runs[name] = next(same, None) or _Run(scope)

    def _open(self, name: str) -> bool:
        run = self.runs.get(name)
        return run is None or run.open

    def _add(self, found: Place, name: str, edits: list[tuple[int, Edit]]) -> None:
        heads, tap, size = found.stack.heads, found.tap, len(self.batch.rows)
        self._runs(name, found.scope)

        def changed(raw: torch.Tensor) -> torch.Tensor:
            value = view(raw, tap, heads, size)
            if not edits and (value is raw or name not in self.capture or not torch.is_grad_enabled()):
                self._capture(name, value)
                return raw
            # The captured value must lie on the path to the logits, so it is put back also where nothing was edited.
            value = view(raw.clone(), tap, heads, size) if tap.stream else value
            new = self._edited(value, found.site, edits)
            self._capture(name, new)
            return unview(raw, new, tap, heads)

        def on_input(args: Any, kwargs: Any) -> Any:
            if not self._open(name):
                return args, kwargs
            value, put = first_input(args, kwargs)
            new = changed(value)
            if new is not value and tap.stream:
                # The residual stream is this very tensor beside the norm, so it changes for all who read it.
                value.copy_(new)
                return args, kwargs
            return (args, kwargs) if new is value else put(new)

        def on_output(output: Any) -> Any:
            if not self._open(name):
                return output
            value = unwrap(output, tap.key)
            new = changed(value)
            new = new.clone() if tap.reused else new
            return output if new is value else rewrap(output, tap.key, new)

        if tap.call:
            self.calls.append((found.module, tap.call, changed))
        else:
            self.hooks.append(Hook(found.module, tap.side, on_input if tap.side == "input" else on_output))

    def _capture(self, name: str, value: torch.Tensor) -> None:
        if name in self.capture:
            self.captured[name] = value
            if self.stop and len(self.captured) == len(set(self.capture)):
                raise _Seen

    def _visit(
        self, steps: Mapping[str, list[tuple[str, list[tuple[int, Edit]]]]]
    ) -> Callable[[str, torch.Tensor], torch.Tensor]:
        def visit(step: str, value: torch.Tensor) -> torch.Tensor:
            for name, edits in steps.get(step, []):
                if not self._open(name):
                    continue
                shaped = value if value.ndim == 4 else value.reshape(len(self.batch.rows), -1, *value.shape[1:])
                new = self._edited(shaped, parse_site(name), edits)
                self._capture(name, new)
                value = value if new is shaped else new.reshape(value.shape)
            return value

        return visit

    def _edited(self, value: torch.Tensor, site: Site, edits: list[tuple[int, Edit]]) -> torch.Tensor:
        if not edits:
            return value
        rows = list(value.unbind(0))
        if len(rows) != len(self.batch.rows):
            raise EditError(
                f"The site {str(site)!r} gave {len(rows)} rows for a batch of {len(self.batch.rows)}; it cannot be "
                "edited here."
            )
        decoder = site.stack == "decoder"
        for i, edit in edits:
            length = (self.batch.decoder_lengths if decoder else self.batch.lengths)[i]
            keys = self.batch.lengths[i] if site.part.startswith("cross_attn") else length
            inner = _unpad(rows[i], site, length, keys, self.batch.offsets[i])
            prompt = self.batch.rows[i].prompt_length
            end, phase = (length, 1) if decoder else (prompt or length, prompt or length)
            new = apply_edit(inner, edit, site, i, end, phase)
            if new is not None:
                self.pending.pop((i, id(edit)), None)
                rows[i] = _repad(rows[i], new, site, self.batch.offsets[i])
        return torch.stack(rows)

    def check_fired(self) -> None:
        """Raise `EditError` for an edit whose place was never reached."""
        if self.pending:
            (row, _), edit = next(iter(self.pending.items()))
            raise EditError(
                f"The edit {edit.describe()!r} never fired on row {row} of {self.batch.lengths[row]} tokens; "
                "check its positions and that the module runs for this input."
            )


def _attention_module(subject: Subject, site: Site) -> tuple[torch.nn.Module, bool, Scope | None]:
    layout = subject.need_layout()
    kind, step = site.part.rsplit(".", 1)
    anchor = f"{kind}.out"
    found = place(subject.model, layout, Site(site.stack, site.layer, anchor))
    if step in ("q_rot", "k_rot") and not found.stack.interface:
        raise SiteError(
            f"{layout.architecture} has no site {site.part!r} that can be reached; use {kind}.{step[0]} or "
            f"{kind}.scores."
        )
    path = found.stack.cross_attention if site.part.startswith("cross_attn") else found.stack.attention
    assert site.layer is not None
    block, scope = block_of(subject.model, found.stack, site.layer)
    return submodule(block, path), found.stack.interface, scope


def _slices(site: Site, length: int, keys: int, offset: int) -> tuple[slice, ...]:
    sizes = {"position": length, "query": length, "key": keys}
    return tuple(slice(offset, offset + sizes[axis]) if axis in sizes else slice(None) for axis in site.axes)


def _unpad(value: torch.Tensor, site: Site, length: int, keys: int, offset: int) -> torch.Tensor:
    if site.part == "logits" and value.ndim == 1:
        return value[None]
    return value[_slices(site, length, keys, offset)]


def _repad(value: torch.Tensor, new: torch.Tensor, site: Site, offset: int) -> torch.Tensor:
    if site.part == "logits" and value.ndim == 1:
        return new[0]
    if new.shape == value.shape:
        return new
    sizes = dict(zip(site.axes, new.shape, strict=True))
    where = _slices(site, sizes.get("position", sizes.get("query", 0)), sizes.get("key", 0), offset)
    padded = value.clone()
    padded[where] = new
    return padded


def tail_hooks(subject: Subject, rows: Sequence[Row]) -> list[Hook]:
    """Return the hooks that make the rows' own edits (none inside attention) on a batch run by other means."""
    lengths = [len(row.ids) for row in rows]
    plain = Batch.__new__(Batch)
    plain.rows, plain.lengths, plain.decoder_lengths, plain.offsets = rows, lengths, [0] * len(rows), [0] * len(rows)
    return _Taps(subject, plain, ()).hooks
