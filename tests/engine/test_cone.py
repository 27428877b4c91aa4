"""Where edits enter the causal cone: after the pattern, at several positions, over a window of layers, on encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.engine import cone, cone_block, cone_onward
from pellucid.engine.capture import capture
from pellucid.engine.cone_rows import base_runs
from pellucid.engine.question import ask
from pellucid.models.edits import Context
from tests.engine.test_sharing import DECODERS, IDS, trusted
from tests.state import changed, model_state
from tests.tiny import TINY

OTHER = [int(i) for i in np.random.default_rng(1).integers(5, 99, size=len(IDS))]


def agree(subject: pellucid.Subject, edits: list[tuple[Edit, ...]], target: Any = 17) -> None:
    question = ask(subject, IDS, target=target)
    before = model_state(subject.model)
    plain = cone.score_edits_plain(subject, question.tokens, question.readout, edits)
    fast = cone.score_edits(subject, question.tokens, question.readout, edits)
    np.testing.assert_allclose(fast, plain, atol=2e-6)
    assert np.abs(plain - plain[0]).max() > 1e-4, "the edits must matter"
    assert changed(before, model_state(subject.model)) == []


def values(subject: pellucid.Subject, part: str, prompt: list[int] = OTHER) -> list[tuple[str, torch.Tensor]]:
    return list(capture(subject, prompt, [f"blocks.*.{part}"]).items())


@pytest.mark.parametrize("name", DECODERS)
def test_a_block_after_its_pattern_is_computed_without_attention(name: str) -> None:
    subject = trusted(name)
    assert cone_block.has_halves(subject, base_runs(subject, tuple(IDS), len(IDS), [()], [11]))


@pytest.mark.parametrize("name", DECODERS)
def test_rows_enter_one_batch_at_their_own_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trusted(name)
    sites = [*values(subject, "resid_post"), *values(subject, "attn.v")]
    edits = [(Edit(site, "patch_from", value, {"position": p}),) for site, value in sites for p in (0, 5, 11)]
    agree(subject, edits)
    assert cone_onward.takes_rows_on_the_way(subject, base_runs(subject, tuple(IDS), len(IDS), [()], [11]))
    monkeypatch.setattr(cone_onward, "takes_rows_on_the_way", lambda *_: False)
    agree(subject, edits)


def test_sets_that_begin_alike_are_one_row_until_they_part() -> None:
    stream = torch.zeros(1, 4)
    edits = [Edit(f"blocks.{layer}.mlp.out", "zero", where={"position": 2}) for layer in range(4)]
    whole, half, other = edits[1:], edits[1:2], [edits[1], Edit("blocks.2.mlp.out", "scale", 3.0, {"position": 2})]
    rows = [cone_onward.Start(0, 1, 2, (2,), stream, tuple(one)) for one in (whole, half, other, whole)]
    rows += [cone_onward.Start(1, 1, 2, (2,), stream, tuple(whole)), cone_onward.Start(0, 1, 2, edits=tuple(whole))]
    numbers, batch = cone_onward._ordered([10, 11, 12, 13, 14, 15], rows, blocks=5)
    found = {
        n: (row.layer, None if row.parent is None else numbers[row.parent])
        for n, row in zip(numbers, batch, strict=True)
    }
    assert found == {10: (1, None), 11: (2, 10), 12: (2, 10), 13: (5, 10), 14: (1, None), 15: (1, None)}
    assert [row.layer for row in batch] == sorted(row.layer for row in batch)


@pytest.mark.parametrize("name", DECODERS)
def test_whole_heads_at_all_positions(name: str) -> None:
    subject = trusted(name)
    edits = [(Edit(site, "patch_from", value, {"head": head}),) for site, value in values(subject, "attn.z")
             for head in range(value.shape[1])]  # fmt: skip
    agree(subject, edits)


@pytest.mark.parametrize("target", [17, Target.continuation([3, 4, 5], each=True)])
@pytest.mark.parametrize("part", ["mlp.out", "attn.k", "resid_pre", "resid_post"])
def test_several_positions_and_slices(part: str, target: Any) -> None:
    subject = trusted("llama")
    places: list[Any] = [(1, 4), [3, -1], slice(2, 6), slice(0, 1), 5]
    agree(
        subject,
        [(Edit(site, "patch_from", v, {"position": p}),) for site, v in values(subject, part) for p in places],
        target,
    )


@pytest.mark.parametrize("parts", [("mlp.out",), ("attn.out", "mlp.out"), ("resid_post",)])
def test_windows_over_layers_and_sets_of_edits(parts: tuple[str, ...]) -> None:
    subject = trusted("gpt2")
    sites = [dict(values(subject, part)) for part in parts]
    window = [(name, value) for one in sites for name, value in one.items()]
    agree(
        subject,
        [tuple(Edit(name, "patch_from", value, {"position": p}) for name, value in window) for p in range(12)],
    )


@pytest.mark.parametrize("at", [(3, 11), 11, None])
@pytest.mark.parametrize("part", ["attn.out", "mlp.post", "mlp.out", "resid_post"])
def test_a_later_edit_of_the_last_block_sees_every_place_it_names(part: str, at: Any) -> None:
    """A function that mixes the place that is read with others needs what the last block makes of those."""
    subject = trusted("gpt2")
    site, where = values(subject, part)[-1][0], {} if at is None else {"position": at}
    mixed = Edit(site, lambda value, context: 3 * value.mean(0).expand_as(value), where=where)
    agree(subject, [(Edit("blocks.0.mlp.out", "zero", where={"position": p}), mixed) for p in (3, 5)])


@pytest.mark.parametrize("target", [17, Target.continuation([3, 4, 5], each=True)])
@pytest.mark.parametrize("part", ["attn.z", "mlp.out", "resid_post"])
def test_the_last_block_computes_edits_where_it_is_read(
    part: str, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = trusted("llama")
    site, other = values(subject, part)[-1]
    at, size = (3, 7, -1), other[0].shape
    each, same = torch.randn(3, *size), torch.randn(size)
    hows = [("set", each), ("set", same), ("add", each), ("scale", same), ("scale", 3.0), ("zero", None)]
    edits: list[tuple[Edit, ...]] = [(Edit(site, "patch_from", other, {"position": at}),)]
    edits += [(Edit(site, how, value, {"position": at}),) for how, value in hows]
    edits += [(Edit(site, "set", each[:2], {"position": (3, 7)}),)]  # changes nothing that is read
    edits += [(Edit(site, "add", each, {"position": at}), Edit(site, "set", same, {"position": 7}))]
    edits += [(Edit(site, lambda value, context: value * len(context.positions), None, {"position": at}),)]
    computed: list[int] = []
    own = cone.after_pattern
    monkeypatch.setattr(
        cone, "after_pattern", lambda *given: (computed.extend(len(row[2]) for row in given[3]), own(*given))[1]
    )
    agree(subject, edits, target)
    assert computed[-len(edits) :] == [1] * (len(edits) - 1) + [3]


def test_the_base_may_be_noisy_at_the_embeddings() -> None:
    """Causal tracing: noise on the subject's tokens, one clean value put back at a time."""
    clean = trusted("llama")
    noise = torch.randn(3, clean.model.config.hidden_size, dtype=torch.float64)
    noisy = clean.with_(Edit("embed.token", "add", 10 * noise, {"position": (2, 3, 4)}))
    restored = [(Edit(site, "patch_from", value, {"position": p}),)
                for site, value in values(clean, "resid_post", IDS) for p in range(12)]  # fmt: skip
    before = cone.score_edits_plain
    agree(noisy, [(Edit("blocks.0.mlp.out", "scale", 1.0, {"position": 0}),), *restored])
    assert cone.score_edits_plain is before


def test_the_noisy_base_takes_the_cone(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = trusted("gpt2").with_(Edit("embed.token", "scale", 1.5, {"position": 1}))
    monkeypatch.setattr(cone, "score_edits_plain", lambda *_: pytest.fail("the plain form was taken"))
    question = ask(noisy, IDS, target=17)
    edits = [(Edit("blocks.1.mlp.out", "zero", where={"position": p}),) for p in range(3)]
    cone.score_edits(noisy, question.tokens, question.readout, edits)


@pytest.mark.parametrize("name", DECODERS)
def test_sets_depart_from_several_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of noise inside the sets, with a window over layers, several positions, and no further edit."""
    subject = trusted(name)
    monkeypatch.setattr(cone, "TOKENS_PER_BATCH", 2 * len(IDS))  # two runs at a time
    clean = capture(subject, IDS, ["blocks.*.resid_post"])
    wide = subject.model.get_input_embeddings().weight.shape[1]
    sets: list[tuple[Edit, ...]] = [()]
    for draw in range(3):
        noise = torch.randn(2, wide, dtype=torch.float64, generator=torch.Generator().manual_seed(draw))
        drawn = Edit("embed.token", "add", 3 * noise, {"position": (2, 3)})
        restored = [Edit(site, "patch_from", value, {"position": 3}) for site, value in clean.items()]
        moved = (Edit("blocks.0.mlp.out", "zero", where={"position": (5, 2)}), Edit("blocks.1.attn.q", "scale", 2.0))
        sets += [(drawn,), (drawn, restored[1]), (drawn, *restored[:2]), (*moved, drawn)]
    agree(subject, sets, Target.continuation([3, 4], each=True))


def test_a_function_is_told_positions_of_the_whole_prompt() -> None:
    subject = trusted("gpt2")
    seen: list[tuple[int, ...]] = []

    def note(value: torch.Tensor, context: Context) -> torch.Tensor:
        seen.append(context.positions)
        return value

    question = ask(subject, IDS, target=17)
    for part in ("mlp.out", "attn.k", "attn.q"):
        edits = [(Edit(f"blocks.1.{part}", note, where={"position": p}),) for p in (3, -2)]
        seen.clear()
        cone.score_edits(subject, question.tokens, question.readout, edits)
        assert sorted(seen) == [(3,), (10,)]


@pytest.mark.parametrize(
    "name",
    [
        "bert-classifier",
        "modernbert-classifier",
        "albert-classifier",
        "distilbert-classifier",
        "deberta-v2-classifier",
    ],
)
def test_encoders_save_the_layers_below(name: str) -> None:
    subject = pellucid.load(TINY[name]().to(torch.float64))
    ids = [2, 11, 42, 7, 3, 64]
    question = ask(subject, ids, target=1)
    edits = [(Edit(site, "zero", where={"position": p}),)
             for site in capture(subject, ids, ["blocks.*.mlp.out"]) for p in range(6)]  # fmt: skip
    plain = cone.score_edits_plain(subject, question.tokens, question.readout, edits)
    np.testing.assert_allclose(cone.score_edits(subject, question.tokens, question.readout, edits), plain, atol=1e-6)
    assert np.ptp(plain) > 1e-4


def test_an_encoder_whose_first_block_serves_the_others_runs_whole() -> None:
    """T5's first block makes the position biases of all."""
    subject = pellucid.load(TINY["t5-encoder"]())
    question = ask(subject, [2, 11, 42, 7], target=lambda hidden: hidden[:, 3])
    edits = [(Edit(f"blocks.{layer}.mlp.out", "zero", where={"position": 1}),) for layer in range(subject.layers)]
    plain = cone.score_edits_plain(subject, question.tokens, question.readout, edits)
    np.testing.assert_allclose(cone.score_edits(subject, question.tokens, question.readout, edits), plain, atol=1e-6)
    assert np.ptp(plain) > 1e-6


def test_encoders_bypass_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(TINY["bert-classifier"]().to(torch.float64))
    question = ask(subject, [2, 11, 42, 7, 3, 64], target=1)
    calls: list[int] = []
    block = subject.model.base_model.encoder.layer[0]
    own = block.forward
    monkeypatch.setattr(block, "forward", lambda *a, **k: (calls.append(1), own(*a, **k))[1])
    edits = [(Edit("blocks.1.mlp.out", "zero", where={"position": p}),) for p in range(3)]
    cone.score_edits(subject, question.tokens, question.readout, edits)  # what is proved once is proved here
    calls.clear()
    cone.score_edits(subject, question.tokens, question.readout, edits)
    assert len(calls) == 1, "the first block runs once, to be handed on"
