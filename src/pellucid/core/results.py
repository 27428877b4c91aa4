"""The kinds of result: frozen values with their unit, sign, tokens, provenance and evidence.

Arrays are NumPy, so that a saved result opens without torch. A kind decides the view; a method never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pellucid.core.axes import AXES
from pellucid.core.display import Displayed, as_pandas
from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens, Units

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]


Kind = TypeVar("Kind", bound="Result")


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Provenance:
    """How a result came about: everything needed to run it again and to judge its price."""

    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_empty)
    model: str = ""
    revision: str = ""
    weights_hash: str = ""
    edits: tuple[str, ...] = ()
    dtype: str = ""
    device: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=_empty)
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    rows: tuple[str, ...] = ()
    paper: str = ""


@dataclass(frozen=True)
class Evidence:
    """One check of an explanation: what was checked, in a sentence and in numbers.

    `ok` is None where the check has no bar. `curves` holds named series (for example the deletion curve), all on
    the x-axis `curves["x"]`.
    """

    name: str
    summary: str
    values: Mapping[str, float] = field(default_factory=_empty)
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=_empty)
    ok: bool | None = None


@dataclass(frozen=True)
class Result(Displayed):
    """What all kinds share; not made directly."""

    title: str = ""
    provenance: Provenance = field(default_factory=Provenance)
    evidence: tuple[Evidence, ...] = ()

    def with_evidence(self: Kind, *evidence: Evidence) -> Kind:
        """Return a copy with more evidence attached."""
        return replace(self, evidence=(*self.evidence, *evidence))


@dataclass(frozen=True)
class Scores(Result):
    """Numbers on named axes: token scores, token matrix, layer grid, head grid and curves are common axis sets.

    `values` has one dimension per name in `axes`; `labels[axis]` names the entries where names help; `unit` is what
    is measured ("logit", "log_prob", ...); `sign` says how to read it, for example "positive raises the target".
    `std_error` has the shape of `values` where the numbers were sampled. `tokens` and `units` tie the axes `unit`,
    `position`, `query` and `key` to the prompt; `target` says in words what was explained. `words`, if given, has one
    text per entry (in C order) that views show in its place, such as the token that a layer would predict.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    axes: tuple[str, ...] = ("unit",)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=_empty)
    unit: str = ""
    sign: str = "positive raises the target, negative lowers it"
    std_error: np.ndarray | None = None
    tokens: Tokens | None = None
    units: Units | None = None
    target: str = ""
    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that axes are known and fit the array."""
        unknown = [axis for axis in self.axes if axis not in AXES]
        if unknown:
            raise InputError(
                f"Scores got the axes {unknown}, which pellucid.core.axes does not define; use {sorted(AXES)}."
            )
        if self.values.ndim != len(self.axes):
            raise InputError(
                f"Scores got {self.values.ndim} dimensions for the axes {self.axes}; give one axis name per dimension."
            )
        for axis, size in zip(self.axes, self.values.shape, strict=True):
            if axis in self.labels and len(self.labels[axis]) != size:
                raise InputError(
                    f"Scores got {len(self.labels[axis])} labels for the axis {axis!r} of size {size}; give one "
                    "label per entry."
                )
        if self.words is not None and len(self.words) != self.values.size:
            raise InputError(
                f"Scores got {len(self.words)} words for {self.values.size} values; give one per value, in C order."
            )

    @property
    def scores(self) -> np.ndarray:
        """Return the array of values."""
        return self.values

    def to_pandas(self) -> pd.DataFrame:
        """Return a long table: a row per entry, a column per axis (labels where given), value, std_error and words."""
        return as_pandas(self, "scores_to_pandas")


@dataclass(frozen=True)
class Graph(Result):
    """Nodes and weighted edges: a circuit, an information flow, an attribution graph.

    Each node is a mapping with at least `id`; `weights[e]` belongs to the edge `sources[e] -> targets[e]`, which are
    node indices.
    """

    nodes: tuple[Mapping[str, Any], ...] = ()
    sources: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    targets: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    unit: str = ""
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Table(Result):
    """Rows of plain values under named columns."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a data frame."""
        return as_pandas(self, "table_to_pandas")


@dataclass(frozen=True)
class Text(Result):
    """An explanation in words."""

    text: str = ""


@dataclass(frozen=True)
class Examples(Result):
    """Items of data with a score each: influential examples, counterfactuals, top activations."""

    items: tuple[Mapping[str, Any], ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    unit: str = ""


@dataclass(frozen=True)
class Learned(Result):
    """Named tensors and the function that applies them: a lens, probe, direction, rotation or dictionary."""

    tensors: Mapping[str, np.ndarray] = field(default_factory=_empty)
    apply: str = ""
    site: str = ""
    settings: Mapping[str, Any] = field(default_factory=_empty)


@dataclass(frozen=True)
class WeightEdit(Result):
    """A change of weights: for each parameter name the tensor to add, in the model's own layout.

    `deltas` holds tensors as they are; `factors` holds a pair (left [rows, rank], right [rank, columns]) whose product
    is the tensor, so that a change of rank one is saved as two vectors. A name stands in one of the two.
    `weights_hash` names the weights that the change was made for, "" any.
    """

    deltas: Mapping[str, np.ndarray] = field(default_factory=_empty)
    weights_hash: str = ""
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=_empty)

    def __post_init__(self) -> None:
        """Check that no parameter is named twice and that factors fit each other."""
        for name, (left, right) in self.factors.items():
            if name in self.deltas:
                raise InputError(f"The weight edit names {name!r} twice, whole and as factors; give it once.")
            if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
                raise InputError(
                    f"The factors of {name!r} have the shapes {left.shape} and {right.shape}; give [rows, rank] and "
                    "[rank, columns]."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the parameters that change."""
        return (*self.deltas, *self.factors)

    def delta(self, name: str) -> np.ndarray:
        """Return the whole tensor that is added to a parameter."""
        if name in self.factors:
            left, right = self.factors[name]
            return left @ right
        if name in self.deltas:
            return self.deltas[name]
        raise InputError(f"The weight edit has no parameter {name!r}; it changes {list(self.names)}.")


@dataclass(frozen=True)
class Explanation(Result):
    """Several results on one question, with what the model predicted and the evidence between them.

    `predictions` holds (text, probability) of the most likely next tokens or classes; `continuation` is the text that
    was generated, if any; `notes` are choices and warnings to be read with the picture.
    """

    results: tuple[Result, ...] = ()
    tokens: Tokens | None = None
    target: str = ""
    predictions: tuple[tuple[str, float], ...] = ()
    continuation: str = ""
    notes: tuple[str, ...] = ()

    def __getitem__(self, method: str) -> Result:
        """Return the result of one method by name."""
        for result in self.results:
            if result.provenance.method == method:
                return result
        have = [r.provenance.method for r in self.results]
        raise InputError(f"This explanation has no result of {method!r}; it holds {have}.")

    def to_pandas(self) -> pd.DataFrame:
        """Return the scores of all methods in one long table with a column `method`."""
        return as_pandas(self, "explanation_to_pandas")


KINDS: dict[str, type[Result]] = {
    kind.__name__: kind for kind in (Scores, Graph, Table, Text, Examples, Learned, WeightEdit, Explanation)
}
