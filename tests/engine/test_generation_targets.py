"""Explaining generation and chat: messages as units, contrasts, and the matrix unit x generated token for free."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.catalogue import Entry, entries
from pellucid.generators import ScriptedGenerator
from tests import plain

# Methods whose scores are linear in the target, with what makes them so.
LINEAR: dict[str, dict[str, Any]] = {
    "occlusion": {"replacement": 3},
    "shapley_values": {"replacement": 3, "permutations": 4},
    "inlier_weighted_occlusion": {"replacement": 3, "samples": 3},
    "attribot": {"replacement": 3, "open_groups": 9},
    "tracllm": {"replacement": 3, "keep": 6, "scorer": "left_out"},
    "syntax_shap": {"replacement": 3},
    "mexgen": {"replacement": 3, "groups": 6},
    "noiser": {"of": "drop", "samples": 3},
}
SPAN = [17, 20, 4]


@cache
def tiny_lm() -> pellucid.Subject:
    return pellucid.load("zoo:tiny-lm")


CHAT = [
    {"role": "user", "content": "Anna lives in Paris."},
    {"role": "assistant", "content": "Good."},
    {"role": "user", "content": "Where does Anna live?"},
]


@pytest.mark.parametrize("method", LINEAR)
def test_the_matrix_costs_no_more_passes_than_the_sum(method: str) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    settings = LINEAR[method]
    each = pellucid.run(method, subject, plain.IDS, target=Target.continuation(SPAN, each=True), **settings)
    summed = pellucid.run(method, subject, plain.IDS, target=Target.continuation(SPAN), **settings)
    assert each.axes == ("unit", "target")
    assert each.scores.shape == (6, 3)
    np.testing.assert_allclose(each.scores.sum(1), summed.scores, atol=1e-9)
    assert each.provenance.forwards == summed.provenance.forwards


@pytest.mark.parametrize("method", LINEAR)
def test_a_contrast_is_the_difference_of_both(method: str) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    this, that, both = (
        pellucid.run(method, subject, plain.IDS, target=target, **LINEAR[method])
        for target in (Target(17), Target(33), Target(17, contrast=33))
    )
    np.testing.assert_allclose(both.scores, this.scores - that.scores, atol=1e-9)


def test_messages_are_units_with_their_roles() -> None:
    subject = tiny_lm()
    found = pellucid.run("occlusion", subject, CHAT, unit="message", replacement="delete")
    assert found.units is not None
    assert found.units.labels == ("user", "assistant", "user")
    tokens = subject.encode(CHAT)
    target = int(subject.model(torch.tensor([tokens.ids])).logits[0, -1].argmax())

    def logit(gone: tuple[int, int]) -> float:
        ids = [t for p, t in enumerate(tokens.ids) if not gone[0] <= p < gone[1]]
        with torch.no_grad():
            return float(subject.model(torch.tensor([ids])).logits[0, -1, target])

    expected = [logit((0, 0)) - logit(span) for span in found.units.spans]
    np.testing.assert_allclose(found.scores, expected, atol=1e-3)


@pytest.mark.parametrize("method", ["attribot", "tracllm", "mexgen", "minimal_erasure_set", "input_reduction"])
def test_methods_for_generation_take_a_chat(method: str) -> None:
    subject = tiny_lm()
    chat = [{"role": "user", "content": "Anna lives in Paris. Tom lives in Rome. Where does Tom live?"}]
    for unit in ("message", "sentence"):
        found = pellucid.run(method, subject, chat, unit=unit)
        assert len(found.scores) == {"message": 1, "sentence": 3}[unit]


SPECIAL: dict[str, dict[str, Any]] = {
    "cimi": {"steps": 2},
    "context_cite": {"samples": 16, "held_out": 8},
    "information_loss": {"steps": 2},
    "language_model_explainer": {"generator": ScriptedGenerator(lambda text: "1, 3")},
    "proxy_spex": {"samples": 32, "trees": 10},
}
WITHOUT_TARGET = ("information_loss", "perturbed_masking")  # they explain representations
PERTURBING = [
    entry
    for entry in entries()
    if entry.family == "attribution" and any(row.startswith(("FAP", "FAS", "N-AT")) for row in entry.rows)
]


@pytest.mark.parametrize("entry", PERTURBING, ids=lambda entry: entry.name)
def test_every_method_that_takes_units_takes_messages_and_contrasts(entry: Entry) -> None:
    names = {parameter["name"] for parameter in entry.parameters}
    if "unit" not in names:
        assert entry.name in ("representation_erasure", "transshap")  # parts of layers, and words
        return
    asked = {} if entry.name in WITHOUT_TARGET else {"target": " Paris", "contrast": " Rome"}
    subject = tiny_lm()
    found = pellucid.run(entry.name, subject, CHAT, unit="message", **asked, **SPECIAL.get(entry.name, {}))
    assert found.units.labels == ("user", "assistant", "user")
    assert len(found.scores) == 3
    assert " Rome" in found.target or not asked
