"""Explaining generation and chat: messages as units, contrasts, and the matrix unit x generated token for free."""

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
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
    subject = pellucid.load("zoo:tiny-lm")
    chat = [
        {"role": "user", "content": "Anna lives in Paris."},
        {"role": "assistant", "content": "Good."},
        {"role": "user", "content": "Where does Anna live?"},
    ]
    found = pellucid.run("occlusion", subject, chat, unit="message", replacement="delete")
    assert found.units is not None
    assert found.units.labels == ("user", "assistant", "user")
    tokens = subject.encode(chat)
    target = int(subject.model(torch.tensor([tokens.ids])).logits[0, -1].argmax())

    def logit(gone: tuple[int, int]) -> float:
        ids = [t for p, t in enumerate(tokens.ids) if not gone[0] <= p < gone[1]]
        with torch.no_grad():
            return float(subject.model(torch.tensor([ids])).logits[0, -1, target])

    expected = [logit((0, 0)) - logit(span) for span in found.units.spans]
    np.testing.assert_allclose(found.scores, expected, atol=1e-3)


@pytest.mark.parametrize("method", ["attribot", "tracllm", "mexgen", "minimal_erasure_set", "input_reduction"])
def test_methods_for_generation_take_a_chat(method: str) -> None:
    subject = pellucid.load("zoo:tiny-lm")
    chat = [{"role": "user", "content": "Anna lives in Paris. Tom lives in Rome. Where does Tom live?"}]
    for unit in ("message", "sentence"):
        found = pellucid.run(method, subject, chat, unit=unit)
        assert len(found.scores) == {"message": 1, "sentence": 3}[unit]
