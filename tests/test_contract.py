"""One contract for every method: what it declares is what it gives, and it leaves everything as it was.

`make test` runs it on five shapes, `make test-all` on every architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.cost import evaluate_cost
from pellucid.core.errors import CapabilityError, PellucidError, SiteError
from pellucid.core.results import KINDS, Graph, Learned, Scores, Table
from pellucid.models.layout import depth
from tests.state import changed, model_state
from tests.tiny import TINY

SHAPES = ["llama", "neox-parallel", "bert-classifier", "t5", "mixtral"]
IDS = [11, 42, 7, 23, 64, 5]
PROMPTS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": IDS},
    "pair": {"clean": IDS, "corrupt": [11, 42, 8, 23, 64, 5]},
}
FEW = {"steps": 8}  # the contract is not about accuracy, and what is trained takes most of its time
METHODS = [entry for entry in pellucid.methods() if entry["kind"] == "method" and entry["takes"] in PROMPTS]
HEADLESS = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2", "modernbert", "albert-groups")
EVERYWHERE = [
    pytest.param(shape, marks=[] if shape in SHAPES else [pytest.mark.all_architectures])
    for shape in TINY
    if not shape.endswith(("masked-lm", "without-head", "-encoder")) and shape not in HEADLESS
]
_subjects: dict[tuple[str, Any], pellucid.Subject] = {}


def subject(shape: str, dtype: torch.dtype = torch.float32) -> pellucid.Subject:
    """Load each tiny model once."""
    if (shape, dtype) not in _subjects:
        _subjects[shape, dtype] = pellucid.load(TINY[shape]().to(dtype))
    return _subjects[shape, dtype]


def few(entry: dict[str, Any]) -> dict[str, int]:
    """Return the parameters of a method that are set lower than by default, so that the contract is soon checked."""
    given = {p["name"]: p.get("default") for p in entry["parameters"]}
    return {name: FEW[name] for name, value in given.items() if name in FEW and value and value > FEW[name]}


def call(entry: dict[str, Any], on: pellucid.Subject, **changes: Any) -> Any:
    """Run a method on its fixture; skip where the subject lacks a capability or site that the method needs."""
    arguments: dict[str, Any] = {"target": 1, **PROMPTS[entry["takes"]], **few(entry), **changes}
    try:
        return pellucid.run(entry["name"], on, **arguments)
    except (CapabilityError, SiteError) as error:
        pytest.skip(str(error))


def numbers(result: Any) -> np.ndarray:
    """Return the numbers of a result of any kind as one array."""
    if isinstance(result, Scores):
        return np.asarray(result.values, dtype=np.float64)
    if isinstance(result, Graph):
        return np.asarray(result.weights, dtype=np.float64)
    if isinstance(result, Learned):
        return np.concatenate([np.ravel(value).astype(np.float64) for value in result.tensors.values()])
    assert isinstance(result, Table)
    return np.array([float(cell) for row in result.rows for cell in row if isinstance(cell, (int, float))])


@pytest.fixture(params=METHODS, ids=[entry["name"] for entry in METHODS])
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Give every registered method."""
    return request.param


@pytest.mark.parametrize("shape", EVERYWHERE)
def test_gives_what_it_declares_and_changes_nothing(entry: dict[str, Any], shape: str) -> None:
    on = subject(shape)
    before, random = model_state(on.model), torch.get_rng_state()
    result = call(entry, on)
    assert changed(before, model_state(on.model)) == []
    assert torch.equal(random, torch.get_rng_state())
    assert type(result) is {kind.lower(): cls for kind, cls in KINDS.items()}[entry["produces"].replace("_", "")]
    if isinstance(result, Scores):
        assert result.axes == tuple(entry["axes"])
        assert np.isfinite(result.values).all()
        assert result.unit
        assert result.sign
        assert result.target
    provenance = result.provenance
    assert provenance.method == entry["name"]
    assert provenance.rows == tuple(entry["rows"])
    counts = {p["name"]: p["default"] for p in entry["parameters"] if isinstance(p.get("default"), (int, float))}
    counts |= few(entry)
    counts |= {
        "units": 6,
        "tokens": 6,
        "targets": 1,
        "layers": max(depth(on.model, on.need_layout(), stack) for stack in on.need_layout().stacks),
        "positions": 6,
        "heads": 4,
        "dimensions": 32,
    }
    forwards, backwards = evaluate_cost(entry["cost"], counts)
    assert provenance.forwards <= forwards, "the declared cost is an upper bound of the passes"
    assert provenance.backwards <= backwards


def test_same_seed_same_answer_and_through_the_disk(entry: dict[str, Any], tmp_path: Path) -> None:
    first, second = call(entry, subject("llama")), call(entry, subject("llama"))
    np.testing.assert_array_equal(numbers(first), numbers(second))
    opened = pellucid.open(first.save(tmp_path / "result"))
    np.testing.assert_array_equal(numbers(opened), numbers(first))
    assert opened.provenance == first.provenance
    assert getattr(opened, "axes", ()) == getattr(first, "axes", ())
    assert opened.evidence == first.evidence


def test_bfloat16_stays_near_float32(entry: dict[str, Any]) -> None:
    """A coarse check that no step silently needs float32: the ranking survives, not the digits."""
    on = (subject("llama"), subject("llama", torch.bfloat16))
    wide, narrow = (numbers(call(entry, one)) for one in on)
    assert np.isfinite(narrow).all()
    if entry["produces"] == "scores":  # of other kinds, what is in the result may depend on the digits
        assert np.abs(narrow - wide).max() <= 0.35 * np.abs(wide).max() + 0.05


def test_a_bad_target_is_refused_and_nothing_is_left_behind(entry: dict[str, Any]) -> None:
    on = subject("llama")
    before = model_state(on.model)
    with pytest.raises(PellucidError, match=r"10000.*0 to 99"):
        pellucid.run(entry["name"], on, **{**PROMPTS[entry["takes"]], "target": 10_000})
    assert changed(before, model_state(on.model)) == []


def test_nothing_is_left_behind_when_the_model_raises(entry: dict[str, Any]) -> None:
    on = subject("llama")
    before, random = model_state(on.model), torch.get_rng_state()

    def explode(value: torch.Tensor, context: object) -> torch.Tensor:
        raise ZeroDivisionError("planted")

    broken = on.with_(pellucid.Edit("blocks.1.resid_pre", explode))
    with pytest.raises((ZeroDivisionError, PellucidError)):
        pellucid.run(entry["name"], broken, **{**PROMPTS[entry["takes"]], "target": 1})
    assert changed(before, model_state(on.model)) == []
    assert torch.equal(random, torch.get_rng_state())


def test_an_edited_subject_is_explained_as_edited(entry: dict[str, Any]) -> None:
    """Removing every later block's work by an edit must show in the answer, and only in the view."""
    on = subject("llama")
    plain = call(entry, on)
    edited = call(entry, on.with_(pellucid.Edit("blocks.0.attn.pattern", "scale", 0.1)))
    again = call(entry, on)
    assert numbers(plain).shape != numbers(edited).shape or not np.allclose(numbers(plain), numbers(edited))
    np.testing.assert_array_equal(numbers(plain), numbers(again))
    assert edited.provenance.edits
