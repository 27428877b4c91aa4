"""Capture and edit by brute force: what an edit means, computed by hand on the native modules."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from pellucid.core.errors import EditError, SiteError
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import Row, forward
from pellucid.models.layout import block_sites
from pellucid.models.load import subject_of
from tests.state import changed, model_state
from tests.tiny_decoders import TINY_DECODERS

IDS = (11, 42, 7, 93, 25)
ALL = ("llama", "gpt2", "opt", "bloom", "falcon-new", "phi3", "qwen2-moe", "gemma2", "olmo2")


def _subject(name: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    return subject_of(TINY_DECODERS[name]().to(dtype), None, name=name, proved=False)


def _sites(subject: Any) -> list[str]:
    blocks = [site for layer in range(subject.layers) for site in block_sites(subject.model, subject.layout, "", layer)]
    return [*blocks, "embed.token", "embed", "final_norm", "logits"]


@pytest.mark.parametrize("name", ALL)
def test_setting_a_site_to_its_own_value_changes_nothing(name: str) -> None:
    subject = _subject(name)
    sites = _sites(subject)
    plain = forward(subject, [Row(IDS)], capture=sites)
    rows = [Row(IDS, edits=(Edit(site, "set", plain.row(site, 0)),)) for site in sites]
    rows += [
        Row(IDS, edits=(Edit(site, "patch_from", plain.row(site, 0), where={"position": 3}),))
        for site in sites
        if not site.endswith(("scores", "pattern"))
    ]
    found = forward(subject, rows).logits
    torch.testing.assert_close(found, plain.logits.expand_as(found), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients_at_captured_values_are_those_of_an_added_vector(name: str) -> None:
    subject = _subject(name, torch.float64)
    sites = _sites(subject)
    output = forward(subject, [Row(IDS)], capture=sites, grad=True)
    seen = torch.autograd.grad(output.logits[0, -1, 5], [output.captured[site] for site in sites])
    added = {site: torch.zeros_like(output.captured[site][0], requires_grad=True) for site in sites}
    edits = tuple(Edit(site, lambda value, context, by=by: value + by) for site, by in added.items())
    edited = forward(subject, [Row(IDS, edits=edits)], grad=True)
    wanted = torch.autograd.grad(edited.logits[0, -1, 5], list(added.values()))
    assert max(float(g.abs().max()) for g in wanted) > 0.1
    for site, found, expected in zip(sites, seen, wanted, strict=True):
        # Scores that are masked do not matter, and the two ways of differentiating them may differ.
        torch.testing.assert_close(
            found[0], expected, atol=1e-7, rtol=1e-6, msg=lambda text, site=site: f"{site}: {text}"
        )


@pytest.mark.parametrize(
    ("name", "path"), [("llama", "self_attn.o_proj"), ("gpt2", "attn.c_proj"), ("falcon-new", "self_attention.dense")]
)
def test_zeroing_a_head_is_the_projection_of_the_other_heads(name: str, path: str) -> None:
    subject = _subject(name)
    capture = ["blocks.1.attn.z", "blocks.1.attn.out"]
    plain = forward(subject, [Row(IDS)], capture=capture)
    edited = forward(subject, [Row(IDS, edits=(Edit("blocks.1.attn.z", "zero", where={"head": 2}),))], capture=capture)
    z = plain.row(capture[0], 0).clone()
    z[:, 2] = 0
    blocks: Any = next(m for m in subject.model.modules() if isinstance(m, torch.nn.ModuleList))
    torch.testing.assert_close(edited.row(capture[1], 0), blocks[1].get_submodule(path)(z.flatten(1)).detach())
    assert not torch.allclose(edited.logits, plain.logits)


def test_patching_a_residual_equals_running_the_blocks_by_hand() -> None:
    subject = _subject()
    body = subject.model.model
    clean, corrupt = Row(IDS), (9, 8, 3, 4, 5)
    given = forward(subject, [clean], capture=["blocks.1.resid_pre"]).row("blocks.1.resid_pre", 0)
    found = forward(
        subject, [Row(corrupt, edits=(Edit("blocks.1.resid_pre", "patch_from", given, where={"position": 2}),))]
    ).logits
    with torch.no_grad():
        stream = body.embed_tokens(torch.tensor([corrupt]))
        turns = body.rotary_emb(stream, torch.arange(5)[None])
        mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
        for layer, block in enumerate(body.layers):
            if layer == 1:
                stream[0, 2] = given[2]
            stream = block(stream, attention_mask=mask, position_embeddings=turns)
        expected = subject.model.lm_head(body.norm(stream))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "olmo2"])
def test_an_edit_between_attention_and_feed_forward_moves_the_skip_connection_too(name: str) -> None:
    subject = _subject(name)
    last = subject.layers - 1
    shift = torch.linspace(-1, 1, 32)
    capture = [f"blocks.{last}.{part}" for part in ("resid_mid", "mlp.out", "resid_post")]
    plain = forward(subject, [Row(IDS)], capture=capture)
    edited = forward(
        subject, [Row(IDS, edits=(Edit(capture[0], "add", shift, where={"position": 1}),))], capture=capture
    )
    torch.testing.assert_close(edited.row(capture[0], 0)[1], plain.row(capture[0], 0)[1] + shift)
    torch.testing.assert_close(edited.row(capture[2], 0), edited.row(capture[0], 0) + edited.row(capture[1], 0))
    assert torch.equal(edited.row(capture[2], 0)[[0, 2, 3, 4]], plain.row(capture[2], 0)[[0, 2, 3, 4]])


def test_edits_in_a_batch_of_unequal_rows_equal_one_by_one_on_either_side_of_the_padding() -> None:
    subject = _subject("mistral-sliding", torch.float64)
    add = torch.linspace(-2, 2, 32, dtype=torch.float64)
    rows = [
        Row(IDS, edits=(Edit("blocks.0.resid_pre", "add", add, where={"position": -1}),)),
        Row(IDS[:2], edits=(Edit("blocks.1.attn.pattern", "zero", where={"head": 1, "query": 1, "key": 0}),)),
        Row(
            (*IDS, 4, 5, 6), edits=(Edit("blocks.0.attn.q", "scale", 3.0, where={"position": [2, 4], "head": [0, 3]}),)
        ),
        Row(IDS[:3]),
    ]
    capture = ["blocks.1.resid_post", "blocks.1.attn.pattern"]
    together = {side: forward(subject, rows, capture=capture, padding=side) for side in ("right", "left")}
    for i, row in enumerate(rows):
        alone = forward(subject, [row], capture=capture)
        for output in together.values():
            torch.testing.assert_close(output.logits[i][: len(row.ids)], alone.logits[0])
            for site in capture:
                torch.testing.assert_close(output.row(site, i), alone.row(site, 0))
    first = forward(subject, [Row(IDS, edits=(Edit("blocks.0.resid_pre", "add", add, where={"position": 4}),))])
    assert torch.equal(first.logits, forward(subject, rows[:1]).logits)


def test_negative_positions_count_from_the_end_of_the_prompt() -> None:
    subject = _subject()
    edit = Edit("blocks.0.resid_pre", "zero", where={"position": -1})
    rows = [
        Row(IDS, edits=(edit,), prompt_length=3),
        Row(IDS, edits=(Edit("blocks.0.resid_pre", "zero", where={"position": 2}),)),
    ]
    output = forward(subject, rows, capture=["blocks.0.resid_pre"])
    assert torch.equal(output.logits[0], output.logits[1])
    assert [bool((p == 0).all()) for p in output.row("blocks.0.resid_pre", 0)] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("phase", "first_step", "zeroed"),
    [("all", 0, [0, 1, 2, 3, 4]), ("prompt", 0, [0, 1, 2]), ("generation", 0, [3, 4]), ("generation", 1, [4])],
)
def test_phases_choose_positions_of_prompt_or_continuation(phase: str, first_step: int, zeroed: list[int]) -> None:
    edit = Edit("blocks.0.resid_pre", "zero", phase=phase, first_step=first_step)
    output = forward(_subject(), [Row(IDS, edits=(edit,), prompt_length=3)], capture=["blocks.0.resid_pre"])
    assert [i for i, p in enumerate(output.row("blocks.0.resid_pre", 0)) if bool((p == 0).all())] == zeroed


def test_named_edits_do_what_they_say() -> None:
    subject, site = _subject(), "blocks.0.mlp.out"
    old = forward(subject, [Row(IDS)], capture=[site]).row(site, 0)
    pool = torch.randn(7, 32)
    direction = torch.randn(32) * 3
    where = {"position": [1, 3]}
    edits = {
        "set": Edit(site, "set", pool[0], where=where),
        "add": Edit(site, "add", pool[:2], where=where),
        "scale": Edit(site, "scale", -2.0, where=where),
        "zero": Edit(site, "zero", where=where),
        "mean": Edit(site, "mean", pool, where=where),
        "resample": Edit(site, "resample", pool, where=where, seed=3),
        "project": Edit(site, "project", direction, where=where),
        "patch_from": Edit(site, "patch_from", old.flip(0), where=where),
    }
    output = forward(subject, [Row(IDS, edits=(edit,)) for edit in edits.values()], capture=[site])
    new = {how: output.row(site, i) for i, how in enumerate(edits)}
    along = (old @ direction)[:, None] * direction / direction.dot(direction)
    expected = {
        "set": pool[0].expand(5, -1), "scale": -2 * old, "zero": 0 * old, "mean": pool.mean(0).expand(5, -1),
        "project": old - along, "patch_from": old.flip(0),
    }  # fmt: skip
    for how, value in expected.items():
        torch.testing.assert_close(new[how][[1, 3]], value[[1, 3]], msg=how)
    torch.testing.assert_close(new["add"][[1, 3]], old[[1, 3]] + pool[:2])
    assert any(torch.equal(new["resample"][1], drawn) for drawn in pool)
    assert torch.equal(new["resample"][1], new["resample"][3])
    for how, value in new.items():
        assert torch.equal(value[[0, 2, 4]], old[[0, 2, 4]]), how
    draws = [
        forward(subject, [Row(IDS, edits=(Edit(site, "resample", pool, seed=s),))], capture=[site]).row(site, 0)[0]
        for s in (3, 3, *range(9))
    ]
    assert torch.equal(draws[0], draws[1])
    assert len({float(d[0]) for d in draws}) > 2


def test_a_neuron_and_a_dimension_are_edited_alone() -> None:
    subject, site = _subject(), "blocks.1.mlp.post"
    edit = Edit(site, "set", 9.0, where={"position": 2, "neuron": slice(4, 8, 2)})
    output = forward(subject, [Row(IDS), Row(IDS, edits=(edit,))], capture=[site])
    old, new = (output.row(site, i) for i in (0, 1))
    assert {(int(p), int(n)) for p, n in (old != new).nonzero()} == {(2, 4), (2, 6)}
    assert new[2, 4] == new[2, 6] == 9


def test_a_pattern_edit_redirects_attention() -> None:
    subject = _subject()
    uniform = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    edit = Edit("blocks.1.attn.pattern", "set", uniform, where={"head": 3})
    output = forward(subject, [Row(IDS, edits=(edit,))], capture=["blocks.1.attn.v", "blocks.1.attn.z"])
    value, z = output.row("blocks.1.attn.v", 0), output.row("blocks.1.attn.z", 0)
    torch.testing.assert_close(z[:, 3], uniform @ value[:, 1])  # query heads 2 and 3 share the second key/value head


def test_edits_at_one_site_come_in_the_order_given_and_the_subjects_come_first() -> None:
    subject, site = _subject(), "blocks.0.mlp.out"
    add, scale = Edit(site, "add", 1.0), Edit(site, "scale", 2.0)
    old = forward(subject, [Row(IDS)], capture=[site]).row(site, 0)
    for view, edits, expected in (
        (subject, (add, scale), (old + 1) * 2),
        (subject, (scale, add), old * 2 + 1),
        (subject.with_(scale), (add,), old * 2 + 1),
        (subject.with_(add).with_(scale), (), (old + 1) * 2),
    ):
        torch.testing.assert_close(forward(view, [Row(IDS, edits=edits)], capture=[site]).row(site, 0), expected)
    assert subject.edits == ()


def test_gradients_reach_the_parameters_of_an_edit() -> None:
    subject = _subject(
        "neox-sequential", torch.float64
    )  # Llama rounds its norms to float32, which differences would see
    vector = (torch.randn(32, dtype=torch.float64) * 0.1).requires_grad_()

    def score(by: torch.Tensor, grad: bool) -> torch.Tensor:
        def shift(value: torch.Tensor, context: Context) -> torch.Tensor:
            assert (context.positions, context.length, context.row) == ((1, 3), 5, 0)
            return value * (1 + by) + by.tanh()

        edit = Edit("blocks.0.resid_mid", shift, where={"position": [1, 3]})
        return forward(subject, [Row(IDS, edits=(edit,))], grad=grad).logits[0, -1, 17]

    (found,) = torch.autograd.grad(score(vector, True), vector)
    for i in (0, 13, 31):
        step = torch.zeros(32, dtype=torch.float64)
        step[i] = 1e-6
        difference = (score(vector.detach() + step, False) - score(vector.detach() - step, False)) / 2e-6
        assert abs(float(found[i] - difference)) < 1e-7 * (1 + abs(float(difference)))
    assert float(found.abs().max()) > 1e-2


def _raise(value: torch.Tensor, context: Context) -> torch.Tensor:
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("site", ["blocks.1.mlp.out", "blocks.1.attn.pattern", "blocks.1.router", "blocks.1.resid_mid"])
def test_an_edit_that_raises_leaves_the_model_as_it_was(site: str) -> None:
    subject = _subject("mixtral")
    subject.model.model.layers[0].train()
    before, rng = model_state(subject.model), torch.get_rng_state()
    plain = forward(subject, [Row(IDS)]).logits
    for bad, message in (
        (Edit(site, _raise), "ZeroDivisionError"),
        (Edit(site, lambda value, context: value[:1]), "same shape"),
    ):
        with pytest.raises(EditError, match=message):
            forward(subject, [Row(IDS, edits=(bad,))])
    assert changed(before, model_state(subject.model)) == []
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(forward(subject, [Row(IDS)]).logits, plain)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("blocks.0.resid_pre", "zero", where={"position": 9}), "never fired on row 1 of 5 tokens"),
        (Edit("blocks.0.resid_pre", "zero", where={"position": -6}), "never fired on row 1 of 5 tokens"),
        (Edit("blocks.0.attn.z", "zero", where={"head": 4}), "names head 4, but the site has 4; use 0 to 3"),
        (Edit("blocks.0.attn.k", "zero", where={"head": 3}), "names head 3, but the site has 2"),
        (Edit("blocks.0.resid_pre", "add", torch.ones(31)), "does not fit the places of shape"),
        (Edit("blocks.0.resid_pre", lambda value, context: value[:, :4]), "return a value of the same shape"),
    ],
)
def test_edits_that_cannot_be_made_say_so(edit: Edit, message: str) -> None:
    with pytest.raises(EditError, match=message):
        forward(_subject(), [Row(IDS), Row(IDS, edits=(edit,))])


def test_wrong_edits_fail_where_they_are_written() -> None:
    with pytest.raises(EditError, match="names the axis 'head', which that site lacks"):
        Edit("blocks.0.resid_pre", "zero", where={"head": 0})
    with pytest.raises(EditError, match="did you mean 'scale'"):
        Edit("blocks.0.resid_pre", "scael", 1.0)
    with pytest.raises(EditError, match="needs a value"):
        Edit("blocks.0.resid_pre", "add")
    with pytest.raises(SiteError, match="layer 7, but the model has layers 0 to 1"):
        _subject().with_(Edit("blocks.7.resid_pre", "zero"))


def test_threads_with_different_edits_on_one_model_get_what_each_gets_alone() -> None:
    subject = _subject("mixtral")
    edits = (
        Edit("blocks.0.attn.pattern", "scale", 0.5),
        Edit("blocks.1.router", "scale", -1.0),
        Edit("blocks.0.resid_mid", "add", 1.0),
    )
    alone = [forward(subject, [Row(IDS, edits=(edit,))]).logits for edit in edits]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            try:
                same = torch.equal(forward(subject, [Row(IDS, edits=(edits[i],))]).logits, alone[i])
            except Exception:
                same = False
            if not same:
                wrong.append(i)

    before = model_state(subject.model)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(edits))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert changed(before, model_state(subject.model)) == []
    assert not torch.equal(alone[0], alone[1])
