"""Steering as a value: what was learned, put to use at chosen layers, positions and phases of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import EditError, InputError
from pellucid.core.results import Learned
from pellucid.core.saving import open_result, save
from pellucid.engine.capture import expand, part_name
from pellucid.models.edits import Context, Edit
from pellucid.models.layout import place

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Operation = Literal["auto", "add", "ablate", "clamp", "cap", "erase", "rewrite"]
OPERATIONS: dict[str, tuple[str, ...]] = {
    "direction": ("add", "ablate", "clamp", "cap"), "eraser": ("erase",), "low_rank": ("rewrite",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Steering:
    """A learned direction, eraser or rewriting put to use: `subject.with_(*steering.edits(subject))`.

    With v the unit direction of a layer and n its scale, the mean norm of the activations it was read from:
    `add` h + c n v, `ablate` h - c (h.v) v (of several directions their span), `clamp` h + c (t - h.v) v,
    `cap` h + c max(t - h.v, 0) v, `erase` h - c P (h - m), `rewrite` h + c R'(W h + b - R h); c is the `coefficient`
    and t the `threshold`. So c = 0 changes nothing, and c counts residual norms in `add` and is a share otherwise.

    Attributes:
        learned: what a steering method returned.
        coefficient: c.
        operation: "auto" takes the first that what was learned allows.
        layers: blocks to act in; None takes the method's own choice.
        positions: absolute positions in the unpadded text, negative from the prompt's end; None means those that the
            method learned for, else all.
        phase: "all", "prompt", or "generation" from its `first_step`-th token on.
        first_step: see `phase`.
        threshold: t, a projection in the units of the activations; None takes the one learned.
        heads: (layer, head) pairs, for directions read at `attn.z`; None takes those chosen by the method.
        condition: a learned direction with a threshold: a prompt is steered only where it speaks (CAST).
        transfer: allow a model with other weights (of the same width) than the one it was learned from.
    """

    learned: Learned
    coefficient: float = 1.0
    operation: Operation = "auto"
    layers: Sequence[int] | None = None
    positions: Sequence[int] | None = None
    phase: Literal["all", "prompt", "generation"] = "all"
    first_step: int = 0
    threshold: float | None = None
    heads: Sequence[tuple[int, int]] | None = None
    condition: Learned | None = None
    transfer: bool = False

    def __post_init__(self) -> None:
        """Check that the operation fits what was learned, and that all numbers are finite."""
        allowed = OPERATIONS.get(self.learned.apply)
        if allowed is None or (self.operation != "auto" and self.operation not in allowed):
            raise InputError(
                f"Steering was asked to {self.operation} with something applied by {self.learned.apply!r}; it takes "
                f"{ {kind: list(ways) for kind, ways in OPERATIONS.items()} }."
            )
        tensors = [*self.learned.tensors.values(), *(self.condition.tensors.values() if self.condition else ())]
        if not np.isfinite(self.coefficient) or not all(np.isfinite(one).all() for one in tensors):
            raise EditError(
                "Steering was given a coefficient or a tensor that is NaN or infinite; learn the direction again in "
                "float32."
            )

    @property
    def way(self) -> str:
        """Return the operation, "auto" resolved."""
        return OPERATIONS[self.learned.apply][0] if self.operation == "auto" else self.operation

    def edits(self, subject: Subject) -> tuple[Edit, ...]:
        """Return the edits that steer a model, for `subject.with_`.

        Raises:
            EditError: a vector from another model, a layer that was not learned, or a condition above the steering.
            SiteError: a site that the model lacks.
        """
        self._check_model(subject, self.learned)
        own = _layers(self.learned)
        pattern = part_name(subject, self.learned.site)
        depth = len(expand(subject, pattern))
        edits = []
        for layer in self._chosen(own, depth):
            value = {name: torch.as_tensor(one[own.index(layer)]) for name, one in self.learned.tensors.items()}
            site = pattern.replace("*", str(layer))
            edits += [self._edit(site, one, where) for one, where in self._parts(layer, value)]
        if self.condition is None:
            return tuple(edits)
        gate = self._gate(subject, min(int(parse_site(edit.site).layer or 0) for edit in edits))
        how = [dataclasses.replace(edit, how=_Gated(gate.how, edit), value=None) for edit in edits]  # type: ignore[arg-type]
        return (gate, *how)

    def result(self) -> Learned:
        """Return steering as a result to save or show: what was learned, its evidence, and how it is used."""
        used = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in _KEPT}
        tensors, settings = dict(self.learned.tensors), {**self.learned.settings, "steering": used}
        if self.condition is not None:
            tensors |= {f"condition.{name}": one for name, one in self.condition.tensors.items()}
            told = {"site": self.condition.site, "apply": self.condition.apply, **self.condition.settings}
            settings["condition"] = told
        return dataclasses.replace(self.learned, tensors=tensors, settings=settings)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save to a folder, with the evidence of what was learned; `Steering.open` reads it."""
        return save(self.result(), path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Steering:
        """Open what `save` wrote; a direction that was saved alone opens with its method's choices."""
        result = open_result(path)
        if not isinstance(result, Learned):
            raise InputError(f"{str(path)!r} holds a {type(result).__name__}, no steering; open it with pellucid.open.")
        return cls.of(result)

    @classmethod
    def of(cls, result: Learned) -> Steering:
        """Return the steering that a result of `result()` describes, or a learned direction with default choices."""
        settings = {k: v for k, v in result.settings.items() if k not in ("steering", "condition")}
        tensors = {k: v for k, v in result.tensors.items() if not k.startswith("condition.")}
        used = dict(result.settings.get("steering", {}))
        if "condition" in result.settings:
            told = dict(result.settings["condition"])
            own = {k.removeprefix("condition."): v for k, v in result.tensors.items() if k.startswith("condition.")}
            used["condition"] = Learned(
                tensors=own, site=told.pop("site"), apply=told.pop("apply"), settings=told, provenance=result.provenance
            )
        if used.get("heads") is not None:
            used["heads"] = tuple((int(layer), int(head)) for layer, head in used["heads"])
        return cls(dataclasses.replace(result, tensors=tensors, settings=settings), **used)

    def _check_model(self, subject: Subject, learned: Learned) -> None:
        here, there = subject.weights_hash(), learned.provenance.weights_hash
        width, found = _width(subject, learned.site), _vector(learned).shape[-1]
        if width is not None and found != width:
            raise EditError(
                f"A vector from another model: it has {found} components, but {learned.site} of {subject.name} has "
                f"{width}; learn the direction from this model."
            )
        if there and there != here and not self.transfer:
            raise EditError(
                f"A vector from another model: it was learned from {learned.provenance.model} with weights {there}, "
                f"but {subject.name} has {here}; learn it from this model, or pass transfer=True."
            )

    def _chosen(self, own: list[int], depth: int) -> list[int]:
        if self.layers is not None:
            asked = [layer + depth if layer < 0 else layer for layer in self.layers]
        elif self.heads is not None or "heads" in self.learned.settings:
            asked = sorted({layer for layer, _ in self._heads()})
        else:
            asked = [int(self.learned.settings["layer"])] if "layer" in self.learned.settings else own
        bad = [layer for layer in asked if layer not in own]
        if bad or not asked:
            raise EditError(f"Steering was asked to act in the layers {asked}, but was learned for {own}; use these.")
        return asked

    def _heads(self) -> list[tuple[int, int]]:
        given = self.learned.settings.get("heads", []) if self.heads is None else self.heads
        return [(int(layer), int(head)) for layer, head in given]

    def _parts(
        self, layer: int, value: dict[str, torch.Tensor]
    ) -> list[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        """Return a layer's tensors with the axes they act on: all at once, or one position or head at a time."""
        given = self.learned.settings.get("at") if self.positions is None else self.positions
        where: dict[str, Any] = {} if given is None else {"position": tuple(int(p) for p in given)}
        if "positions" in self.learned.settings:
            own = [int(p) for p in self.learned.settings["positions"]]
            kept = [p for p in own if self.positions is None or p in where["position"]]
            return [({n: one[own.index(p)] for n, one in value.items()}, {"position": (p,)}) for p in kept]
        if Site("", layer, self.learned.site).axes[-2:] != ("head", "dimension"):
            return [(value, where)]
        heads = [head for at, head in self._heads() if at == layer]
        heads = heads or list(range(len(value["directions"])))
        return [({name: one[head] for name, one in value.items()}, {**where, "head": [head]}) for head in heads]

    def _edit(self, site: str, value: dict[str, torch.Tensor], where: dict[str, Any]) -> Edit:
        common: dict[str, Any] = {"where": where, "phase": self.phase, "first_step": self.first_step}
        c = float(self.coefficient)
        if self.way == "add":
            shift = c * value.get("scales", torch.ones(())).unsqueeze(-1) * value["directions"]
            return Edit(site, "add", shift.sum(0) if shift.ndim > 1 else shift, **common)
        if self.way == "ablate" and c == 1.0 and value["directions"].ndim == 1:
            return Edit(site, "project", value["directions"], **common)
        if self.way in ("clamp", "cap") and self.threshold is None and "thresholds" not in value:
            raise EditError(
                f"Steering was asked to {self.way} at a threshold, but none was learned; pass threshold=, a projection."
            )
        threshold = (
            value.get("thresholds", torch.zeros(()))
            if self.threshold is None
            else torch.tensor(self.threshold, dtype=torch.float64)
        )
        return Edit(site, _Change(self.way, c, value, threshold), **common)

    def _gate(self, subject: Subject, lowest: int) -> Edit:
        condition = self.condition
        assert condition is not None
        self._check_model(subject, condition)
        layer = int(condition.settings["layer"])
        if layer > lowest:
            raise EditError(
                f"The condition is read in layer {layer}, but steering begins in layer {lowest}; steer from that layer "
                "on, or read the condition earlier."
            )
        index = _layers(condition).index(layer)
        gate = _Gate(
            torch.as_tensor(condition.tensors["directions"][index]),
            float(condition.settings["threshold"]),
            bool(condition.settings.get("above", True)),
        )
        return Edit(part_name(subject, condition.site).replace("*", str(layer)), gate, phase="prompt")


_KEPT = ("learned", "condition")


@dataclass(frozen=True, eq=False)
class _Change:
    """The edit functions that are more than adding a vector; `value` are the layer's tensors."""

    way: str
    coefficient: float
    value: dict[str, torch.Tensor]
    threshold: torch.Tensor

    @property
    def __name__(self) -> str:
        return f"{self.way} by {self.coefficient:g}"

    def __call__(self, h: torch.Tensor, context: Context) -> torch.Tensor:
        at = {name: one.to(h) for name, one in self.value.items()}
        return h + self.coefficient * self._update(h, at)

    def _update(self, h: torch.Tensor, at: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.way == "erase":
            return -(h - at["means"]) @ at["projections"].mT
        if self.way == "rewrite":
            return (h @ at["sources"].mT + at["biases"] - h @ at["rotations"].mT) @ at["rotations"]
        v = at["directions"]
        if self.way == "ablate":
            basis = torch.linalg.qr(v.reshape(-1, v.shape[-1]).double().mT).Q.to(h)
            return -(h @ basis) @ basis.mT
        v = v / v.norm()
        gap = self.threshold.to(h) - h @ v
        return (gap.clamp(min=0) if self.way == "cap" else gap).unsqueeze(-1) * v


@dataclass(frozen=True, eq=False)
class _Gate:
    """An edit that changes nothing, but notes for each row whether its prompt speaks in a direction."""

    direction: torch.Tensor
    threshold: float
    above: bool
    open: dict[int, bool] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        return "condition"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        similar = condition_scores(value.detach().mean(0)[None], self.direction.to(value))[0]
        self.open[context.row] = bool(similar > self.threshold) == self.above
        return value


@dataclass(frozen=True, eq=False)
class _Gated:
    """An edit that is made on the rows whose gate is open; the gate lies before it in every run."""

    gate: _Gate
    edit: Edit

    @property
    def __name__(self) -> str:
        return f"conditional {self.edit.describe()}"

    def __call__(self, value: torch.Tensor, context: Context) -> torch.Tensor:
        if not self.gate.open.get(context.row, False):
            return value
        how: str | Callable[..., torch.Tensor] = self.edit.how
        if callable(how):
            return how(value, context)
        direction = torch.as_tensor(self.edit.value).to(value)
        if how == "add":
            return value + direction
        direction = direction / direction.norm()
        return value - (value @ direction).unsqueeze(-1) * direction


def condition_scores(values: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return the cosine of values [n, dimension] with a direction: how much a prompt speaks in it."""
    return torch.nn.functional.cosine_similarity(values, direction[None], dim=-1)


def _layers(learned: Learned) -> list[int]:
    found = learned.settings.get("layers")
    return list(range(len(next(iter(learned.tensors.values()))))) if found is None else [int(layer) for layer in found]


def _vector(learned: Learned) -> np.ndarray:
    """Return the tensor whose last axis is that of the activations."""
    names = ("directions", "means", "rotations")
    return next(learned.tensors[name] for name in names if name in learned.tensors)


def _width(subject: Subject, site: str) -> int | None:
    """Return the components of a value at a block part: of the stream, or of one head; None where it is neither."""
    layout = subject.need_layout()
    stack = parse_site(part_name(subject, site).replace("*", "0")).stack
    if site.rsplit(".", 1)[-1] in ("z", "q", "k", "v"):
        return place(subject.model, layout, Site(stack, 0, site)).stack.heads.width
    if Site(stack, 0, site).axes[-1] != "dimension":
        return None
    return getattr(subject.model.config, "hidden_size", None)


def _plain(value: Any) -> Any:
    return [list(one) if isinstance(one, tuple) else one for one in value] if isinstance(value, Sequence) and not (
        isinstance(value, str)
    ) else value  # fmt: skip
