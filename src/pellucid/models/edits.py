"""Edits of activations as values: where, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import EditError, PellucidError, did_you_mean

Indices = int | slice | Sequence[int]
EditFunction = Callable[[torch.Tensor, "Context"], torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What a function edit is told: the site, the row of the batch, the positions it gets and the length of the row."""

    site: Site
    row: int
    positions: tuple[int, ...]
    length: int


@dataclass(frozen=True, eq=False)
class Edit:
    """Replace the value at a site; how is a name or any differentiable function `(value, context) -> value`.

    Names: `set` (to `value`), `add`, `scale`, `zero`, `mean` (of `value` over its first axis), `resample` (one entry of
    `value`'s first axis, drawn with `seed`), `project` (remove the direction `value`), `patch_from` (`value` holds the
    whole site of another run, batch left out; the same places are taken from it). `where` maps axis names of the site
    (`position`, `head`, `neuron`, `query`, `key`, `dimension`) to indices; an axis left out means all. Positions are
    absolute in the unpadded sequence; negative ones count from the end of the prompt. `phase` is "all", "prompt"
    (positions of the prompt) or "generation" (positions of generated or teacher-forced tokens, from the
    `first_step`-th on). A function
    sees the chosen places of one row: [positions, ...].
    """

    site: str
    how: str | EditFunction
    value: torch.Tensor | float | None = None
    where: Mapping[str, Indices] = field(default_factory=dict)
    phase: str = "all"
    first_step: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check names against the site, so that a wrong edit fails where it is written."""
        site = parse_site(self.site)
        for axis in self.where:
            if axis not in site.axes:
                raise EditError(
                    f"The edit at {self.site!r} names the axis {axis!r}, which that site lacks; it has "
                    f"{list(site.axes)}."
                )
        if not callable(self.how) and self.how not in HOW:
            raise EditError(
                f"The edit {self.how!r} is unknown{did_you_mean(self.how, HOW)}; use one of {sorted(HOW)} or a "
                "function."
            )
        if not callable(self.how) and self.how != "zero" and self.value is None:
            raise EditError(f"The edit {self.how!r} at {self.site!r} needs a value; pass value=.")
        if self.phase not in ("all", "prompt", "generation"):
            raise EditError(
                f"The edit at {self.site!r} asks for phase {self.phase!r}; use 'all', 'prompt' or 'generation'."
            )

    def describe(self) -> str:
        """Return the edit in one line, for provenance."""
        how = self.how if isinstance(self.how, str) else getattr(self.how, "__name__", type(self.how).__name__)
        where = ", ".join(f"{axis}={index}" for axis, index in self.where.items())
        return (
            f"{how} {self.site}"
            + (f" [{where}]" if where else "")
            + ("" if self.phase == "all" else f" in {self.phase}")
        )


def _set(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return _like(edit.value, value).expand_as(value)


def _add(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return value + _like(edit.value, value)


def _scale(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return value * _like(edit.value, value)


def _zero(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return torch.zeros_like(value)


def _mean(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return _like(edit.value, value).mean(0).expand_as(value)


def _resample(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    pool = _like(edit.value, value)
    draw = torch.randint(len(pool), (1,), generator=torch.Generator().manual_seed(edit.seed))
    return pool[int(draw)].expand_as(value)


def _project(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    direction = _like(edit.value, value)
    direction = direction / direction.norm()
    return value - (value @ direction).unsqueeze(-1) * direction


def _patch_from(value: torch.Tensor, edit: Edit, index: tuple[Any, ...]) -> torch.Tensor:
    return _like(edit.value, value)[index]


HOW: dict[str, Callable[[torch.Tensor, Edit, tuple[Any, ...]], torch.Tensor]] = {
    "set": _set, "add": _add, "scale": _scale, "zero": _zero,
    "mean": _mean, "resample": _resample, "project": _project, "patch_from": _patch_from,
}  # fmt: skip


def _like(value: torch.Tensor | float | None, other: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=other.dtype, device=other.device)


def apply_edit(
    row_value: torch.Tensor, edit: Edit, site: Site, row: int, prompt_length: int, phase_start: int
) -> torch.Tensor | None:
    """Return the edited value of one row, or None where none of the edit's places is present.

    Args:
        row_value: the value at the site without padding, axes as in `site.axes`.
        edit: the edit.
        site: its parsed site.
        row: index of the row in the batch, for the context.
        prompt_length: number of prompt tokens; negative positions count from there.
        phase_start: the first position of the generation phase.
    """
    index: list[Any] = []
    positions: tuple[int, ...] = ()
    named = [i for i, axis in enumerate(site.axes) if axis in edit.where or i == 0]
    for axis, size in list(zip(site.axes, row_value.shape, strict=True))[: named[-1] + 1]:
        chosen = _resolve(edit.where.get(axis), axis, size, prompt_length, edit)
        if axis in ("position", "query"):
            chosen = [c for c in chosen if _in_phase(c, edit, phase_start)]
            positions = tuple(chosen)
        if len(chosen) == 0:
            return None
        index.append(torch.tensor(chosen, device=row_value.device))
    mesh = tuple(torch.meshgrid(*index, indexing="ij")) if len(index) > 1 else tuple(index)
    chosen_value = row_value[mesh]
    if isinstance(edit.how, str):
        try:
            new = HOW[edit.how](chosen_value, edit, mesh)
        except (RuntimeError, IndexError) as error:
            size = tuple(torch.as_tensor(edit.value).shape)
            raise EditError(
                f"The edit {edit.describe()!r} has a value of the shape {size}, which does not fit the places of "
                f"shape {tuple(chosen_value.shape)}; "
                "give a value that broadcasts to that shape."
            ) from error
    else:
        new = _called(edit, edit.how, chosen_value, Context(site, row, positions, row_value.shape[0]))
    if new.shape != chosen_value.shape:
        raise EditError(
            f"The edit {edit.describe()!r} returned the shape {tuple(new.shape)} for places of shape "
            f"{tuple(chosen_value.shape)}; "
            "return a value of the same shape."
        )
    return row_value.index_put(mesh, new.to(row_value.dtype))


def _called(edit: Edit, function: EditFunction, value: torch.Tensor, context: Context) -> torch.Tensor:
    try:
        new: Any = function(value, context)
    except (PellucidError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise EditError(
            f"The edit {edit.describe()!r} raised {type(error).__name__} ({error}) on places of shape "
            f"{tuple(value.shape)}; correct its function."
        ) from error
    if not isinstance(new, torch.Tensor):
        raise EditError(
            f"The edit {edit.describe()!r} returned a {type(new).__name__}; return a tensor of the shape "
            f"{tuple(value.shape)}."
        )
    return new


def _in_phase(position: int, edit: Edit, phase_start: int) -> bool:
    if edit.phase == "prompt":
        return position < phase_start
    return edit.phase == "all" or position >= phase_start + edit.first_step


def _resolve(wanted: Indices | None, axis: str, size: int, prompt_length: int, edit: Edit) -> list[int]:
    if wanted is None:
        return list(range(size))
    if isinstance(wanted, slice):
        return list(range(*wanted.indices(size)))
    given = [wanted] if isinstance(wanted, int) else [int(w) for w in wanted]
    if axis in ("position", "query", "key"):
        absolute = [g if g >= 0 else prompt_length + g for g in given]
        return [a for a in absolute if 0 <= a < size]
    bad = [g for g in given if not -size <= g < size]
    if bad:
        raise EditError(
            f"The edit {edit.describe()!r} names {axis} {bad[0]}, but the site has {size}; use 0 to {size - 1}."
        )
    return [g % size for g in given]
