"""The study of indirect objects: its pairs, its circuit against hooks written by hand, and what tiny-lm does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Explanation, Table
from pellucid.methods.reading.direct_logit_attribution import direct_logit_attribution
from pellucid.studies._circuit import scores_with_only
from pellucid.studies._paths import straight_to_logits
from pellucid.studies._trials import Trial
from pellucid.studies.indirect_object import STORIES, _trials, indirect_object
from pellucid.zoo import lexicon
from tests import plain


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    return pellucid.load("zoo:tiny-lm")


@pytest.fixture(scope="module")
def found(subject: pellucid.Subject) -> Explanation:
    return indirect_object(subject)


def test_a_pair_differs_at_three_names_and_lines_up(subject: pellucid.Subject) -> None:
    ids = {name: subject.encode(f"to {name}").ids[-1] for name in lexicon.FIRST_NAMES}
    for trial in _trials(subject, ids, STORIES, lexicon.PLACES, lexicon.OBJECTS, 8, 0):
        clean, corrupt = subject.encode(trial.clean).ids, subject.encode(trial.corrupt).ids
        assert len(clean) == len(corrupt)
        assert [i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b] == sorted(
            trial.places.values()
        )
        assert clean[trial.places["IO"]] == trial.right[0]
        assert clean[trial.places["S1"]] == clean[trial.places["S2"]] == trial.wrong[0]
        assert len({corrupt[place] for place in trial.places.values()} | {*trial.right, *trial.wrong}) == 5


def test_the_same_seed_gives_the_same_pairs(subject: pellucid.Subject) -> None:
    ids = {name: subject.encode(f"to {name}").ids[-1] for name in lexicon.FIRST_NAMES}
    drawn = [_trials(subject, ids, STORIES, lexicon.PLACES, lexicon.OBJECTS, 4, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_tiny_lm_moves_the_name_by_head_5_3_from_head_0_0(found: Explanation) -> None:
    table = next(one for one in found.results if isinstance(one, Table))
    roles = {row[0]: row[1] for row in table.rows}
    assert roles["5.3"] == "name movers"
    assert roles["0.0"] == "before those"
    ability, faithful, direct, total = found.evidence
    assert ability.values["accuracy"] == 1
    assert faithful.values["model"] > 10
    assert faithful.values["faithfulness"] > 0.5
    assert direct.ok and "direct attribution" in direct.name  # noqa: PT018
    assert total.ok and "ablation" in total.name  # noqa: PT018


@pytest.mark.slow
def test_head_5_3_writes_most_and_path_patching_agrees(subject: pellucid.Subject) -> None:
    ids = {name: subject.encode(f"to {name}").ids[-1] for name in lexicon.FIRST_NAMES}
    trials = _trials(subject, ids, STORIES, lexicon.PLACES, lexicon.OBJECTS, 16, 0)
    written = [direct_logit_attribution(subject, one.clean, **one.answer, parts="heads").values for one in trials]
    mean = np.mean(written, 0)
    assert np.unravel_index(mean.argmax(), mean.shape) == (5, 3)
    sent = straight_to_logits(subject, trials[:2], "sent").values
    assert np.corrcoef(sent.ravel(), np.mean(written[:2], 0).ravel())[0, 1] > 0.8


def test_a_model_that_cannot_is_told_so_without_a_picture(subject: pellucid.Subject) -> None:
    found = indirect_object(subject.with_(pellucid.Edit("blocks.0.attn.z", "zero")))
    assert found.results == ()
    assert len(found.notes) == 1
    assert "cannot do this task" in found.notes[0]


def test_means_of_heads_are_put_in_as_by_hooks() -> None:
    model = plain.tiny("llama")
    subject = pellucid.load(model)
    trials = [Trial([11, 42, 7, 23], [11, 9, 7, 31], (17,), (33,)), Trial([11, 8, 7, 64], [11, 5, 7, 2], (17,), (33,))]
    heads = model.config.num_attention_heads
    kept = frozenset({(0, 1), (1, 0)})
    every = frozenset((layer, head) for layer in range(subject.layers) for head in range(heads))
    got = scores_with_only(subject, trials, [every, kept])
    inputs: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(subject.layers)}
    outputs = [layer.self_attn.o_proj for layer in model.model.layers]

    def note(layer: int):
        return outputs[layer].register_forward_pre_hook(lambda _, given: inputs[layer].append(given[0][0]))

    hooks = [note(layer) for layer in inputs]
    for trial in trials:
        plain.logits(model, trial.corrupt)
    for hook in hooks:
        hook.remove()

    def put_in(layer: int):
        def replace(_, given):
            value = given[0].clone().unflatten(-1, (heads, -1))
            mean = torch.stack(inputs[layer]).mean(0).unflatten(-1, (heads, -1))
            out = [head for head in range(heads) if (layer, head) not in kept]
            value[0, :, out] = mean[:, out]
            return (value.flatten(-2),)

        return outputs[layer].register_forward_pre_hook(replace)

    whole = [plain.logits(model, trial.clean) for trial in trials]
    hooks = [put_in(layer) for layer in inputs]
    ablated = [plain.logits(model, trial.clean) for trial in trials]
    for hook in hooks:
        hook.remove()
    wanted = [np.mean([float(one[17] - one[33]) for one in logits]) for logits in (whole, ablated)]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert abs(wanted[0] - wanted[1]) > 1e-4


def test_bad_words_and_models_are_refused(subject: pellucid.Subject) -> None:
    with pytest.raises(InputError, match=r"Only 2 of 3 names are one token for .*, but 5 are needed; give other names"):
        indirect_object(subject, names=["Mary", "John", "Xylophonia"])
    with pytest.raises(InputError, match=r"cannot be filled \('who'\); use {x}"):
        indirect_object(subject, templates=["Then {x} and {who} met. {giver} gave a {thing} to"])
    with pytest.raises(InputError, match=r"differ at 2 tokens, not at three names"):
        indirect_object(subject, templates=["Then {x} met. {giver} gave a {thing} to"])
    with pytest.raises(CapabilityError, match=r"kind 'encoder'.*load a decoder"):
        indirect_object(pellucid.load("zoo:tiny-classifier"))
