"""The mean difference against the hidden states of the native model, and on a model that knows sentiment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.steering.mean_difference import mean_difference
from tests import plain

POSITIVE, NEGATIVE = [[11, 42, 7, 5], [23, 64, 5], [3, 9]], [[8, 1, 2, 77], [50, 51, 52], [33, 17]]


def by_hand(layer: int, ids: list[int], position: int | str) -> torch.Tensor:
    """Return the stream behind a block of GPT-2's last position, as plainly as Hugging Face allows."""
    with torch.no_grad():
        states = plain.tiny("gpt2").transformer(torch.tensor([ids]), output_hidden_states=True).hidden_states
        block = plain.tiny("gpt2").transformer.h[layer](states[layer])
    value = (block[0] if isinstance(block, tuple) else block)[0]
    return value.mean(0) if position == "mean" else value[position]


@pytest.mark.parametrize("position", [-1, 1, "mean"])
def test_equals_the_difference_of_hidden_states(position: int | str) -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = mean_difference(subject, POSITIVE, NEGATIVE, position=position)
    for layer in range(2):
        one = torch.stack([by_hand(layer, ids, position) for ids in POSITIVE])
        none = torch.stack([by_hand(layer, ids, position) for ids in NEGATIVE])
        wanted = one.mean(0) - none.mean(0)
        np.testing.assert_allclose(found.tensors["directions"][layer], wanted / wanted.norm(), atol=1e-9)
        norms = torch.cat([one, none]).norm(dim=1).mean()
        assert found.tensors["scales"][layer] == pytest.approx(float(norms))
        middle = (one.mean(0) + none.mean(0)) / 2 @ (wanted / wanted.norm())
        assert found.tensors["offsets"][layer] == pytest.approx(float(middle))


def test_counts_one_forward_per_prompt_and_takes_some_layers() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    every = mean_difference(subject, POSITIVE, NEGATIVE)
    last = mean_difference(subject, POSITIVE, NEGATIVE, layers=[-1])
    assert every.provenance.forwards == 6
    assert last.settings["layers"] == [1]
    np.testing.assert_allclose(last.tensors["directions"][0], every.tensors["directions"][1], atol=1e-12)


def test_held_out_prompts_come_in_pairs_and_are_not_learned_from() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    some = [[i, i + 1, i + 2] for i in range(8)], [[i + 40, i, i + 3] for i in range(8)]
    found = mean_difference(subject, *some, test_share=0.25)
    assert found.evidence[0].values["prompts"] == 4
    whole = mean_difference(subject, *some, test_share=0.0)
    assert np.abs(found.tensors["directions"] - whole.tensors["directions"]).max() > 1e-3


def test_errors_say_what_to_do() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="negative is empty"):
        mean_difference(subject, POSITIVE, [])
    with pytest.raises(InputError, match="came out as zero"):
        mean_difference(subject, POSITIVE, POSITIVE)
    with pytest.raises(InputError, match="a position that every prompt has"):
        mean_difference(subject, POSITIVE, NEGATIVE, position=2)
