"""Encoders and encoder-decoders: the proofs hold, and what is read at each site is what the model itself reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from pellucid.core.errors import LayoutError, ModelError, SiteError
from pellucid.models.edits import Edit
from pellucid.models.forward import Row, forward
from pellucid.models.layout import depth
from pellucid.models.load import kind_and_head, subject_of
from pellucid.models.proofs import proofs
from pellucid.models.subject import Subject
from tests.tiny_encoders import BERT, TINY_ENCODERS, tiny

ENCODER_DECODERS = [
    name for name in TINY_ENCODERS if name.split("-")[0] in ("t5", "bart", "marian") and name != "t5-encoder"
]
ENCODERS = [name for name in TINY_ENCODERS if name not in ENCODER_DECODERS]
LONG, SHORT = (5, 17, 33, 8, 60, 41), (9, 12, 50)


def loaded(name: str, dtype: torch.dtype = torch.float64) -> Subject:
    return subject_of(TINY_ENCODERS[name]().to(dtype), None, name=name, proved=False)


def rows(subject: Subject) -> list[Row]:
    if subject.kind == "encoder-decoder":
        return [Row(LONG, (2, 30, 31)), Row(SHORT, (2, 40, 41, 42, 43))]
    return [Row(LONG), Row(SHORT)]


def native(subject: Subject, row: Row, **options: Any) -> Any:
    ids: dict[str, Any] = {"input_ids": torch.tensor([row.ids])}
    if row.decoder_ids:
        ids["decoder_input_ids"] = torch.tensor([row.decoder_ids])
    with torch.no_grad():
        return subject.model(**ids, **options)


@pytest.mark.parametrize("name", TINY_ENCODERS)
def test_proofs_in_double_precision(name: str) -> None:
    failed = [proof for proof in proofs(loaded(name)) if not proof.ok]
    assert not failed


@pytest.mark.all_architectures
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", TINY_ENCODERS)
def test_proofs_in_lower_precision(name: str, dtype: torch.dtype) -> None:
    failed = [proof for proof in proofs(loaded(name, dtype)) if not proof.ok]
    assert not failed


@pytest.mark.parametrize("name", ENCODERS)
def test_residuals_are_the_hidden_states_that_the_model_reports(name: str) -> None:
    subject = loaded(name)
    layers = subject.layers
    sites = ["embed", *(f"blocks.{layer}.resid_post" for layer in range(layers))]
    output = forward(subject, rows(subject), capture=sites)
    for i, row in enumerate(rows(subject)):
        hidden = native(subject, row, output_hidden_states=True).hidden_states
        # Before a final norm the last entry is not the residual, and ALBERT reports one entry per layer, not per
        # inner group.
        for site, state in list(zip(sites, hidden, strict=True))[
            : layers + ("norm" not in str(subject.need_layout().stacks[""].final_norm))
        ]:
            torch.testing.assert_close(output.row(site, i), state[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["bert", "albert", "albert-groups", "deberta-v2", "modernbert", "t5-encoder"])
def test_patterns_are_the_attentions_that_the_model_reports(name: str) -> None:
    subject = loaded(name)
    if name != "deberta-v2":
        subject.model.set_attn_implementation("eager")
    sites = [f"blocks.{layer}.attn.pattern" for layer in range(subject.layers)]
    output = forward(subject, rows(subject), capture=sites)
    for i, row in enumerate(rows(subject)):
        for site, pattern in zip(sites, native(subject, row, output_attentions=True).attentions, strict=True):
            torch.testing.assert_close(output.row(site, i), pattern[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_both_stacks_and_the_cross_attention_are_what_the_model_reports(name: str) -> None:
    subject = loaded(name)
    subject.model.set_attn_implementation("eager")
    sites = []
    for stack in ("encoder", "decoder"):
        layers = range(depth(subject.model, subject.need_layout(), stack))
        sites += [f"{stack}.blocks.{layer}.{part}" for part in ("resid_pre", "attn.pattern") for layer in layers]
    sites += [f"decoder.blocks.{layer}.cross_attn.pattern" for layer in range(subject.layers)]
    output = forward(subject, rows(subject), capture=sites)
    for i, row in enumerate(rows(subject)):
        told = native(subject, row, output_attentions=True, output_hidden_states=True)
        kinds = (
            ("encoder", "resid_pre", told.encoder_hidden_states), ("decoder", "resid_pre", told.decoder_hidden_states),
            ("encoder", "attn.pattern", told.encoder_attentions), ("decoder", "attn.pattern", told.decoder_attentions),
            ("decoder", "cross_attn.pattern", told.cross_attentions),
        )  # fmt: skip
        for stack, part, values in kinds:
            for layer in range(depth(subject.model, subject.need_layout(), stack)):
                found = output.row(f"{stack}.blocks.{layer}.{part}", i)
                torch.testing.assert_close(found, values[layer][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("one_module", [False, True])
@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_token_embeddings_of_both_stacks_are_told_apart(name: str, one_module: bool) -> None:
    subject = loaded(name)
    if one_module:
        subject.model.set_input_embeddings(subject.model.get_input_embeddings())
        root = getattr(subject.model, "model", subject.model)
        assert root.encoder.embed_tokens is root.decoder.embed_tokens
    sites = ["encoder.embed.token", "decoder.embed.token"]
    plain = forward(subject, rows(subject), capture=sites)
    table = subject.model.get_input_embeddings()
    for i, row in enumerate(rows(subject)):
        for site, ids in zip(sites, (row.ids, row.decoder_ids), strict=True):
            torch.testing.assert_close(plain.row(site, i), table(torch.tensor(ids)))
    for edited, other in (sites, sites[::-1]):
        output = forward(subject.with_(Edit(edited, "zero")), rows(subject), capture=sites)
        assert not output.row(edited, 0).any()
        torch.testing.assert_close(output.row(other, 0), plain.row(other, 0))


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("part", ["resid_pre", "attn.q", "attn.pattern", "mlp.post", "resid_mid", "resid_post"])
def test_an_edit_of_a_reused_module_touches_one_layer(part: str, layer: int) -> None:
    subject = loaded("albert")
    sites = [f"blocks.{n}.resid_post" for n in range(3)]
    plain = forward(subject, [Row(LONG)], capture=sites)
    edit = Edit(f"blocks.{layer}.{part}", "scale", 0.5)
    output = forward(subject.with_(edit), [Row(LONG)], capture=[*sites, edit.site])
    moved = [bool((plain.captured[site] - output.captured[site]).abs().max() > 1e-9) for site in sites]
    assert moved == [n >= layer for n in range(3)]


def test_blocks_of_albert_are_calls_in_the_order_of_the_run() -> None:
    subject = loaded("albert-groups")
    groups = subject.model.albert.encoder.albert_layer_groups
    assert subject.layers == 8
    order = [groups[g].albert_layers[inner].ffn for g in (0, 0, 1, 1) for inner in (0, 1)]
    output = forward(
        subject, [Row(LONG)], capture=[f"blocks.{n}.{part}" for n in range(8) for part in ("resid_mid", "mlp.up")]
    )
    for n, ffn in enumerate(order):
        torch.testing.assert_close(ffn(output.row(f"blocks.{n}.resid_mid", 0)), output.row(f"blocks.{n}.mlp.up", 0))


def test_embeddings_may_be_narrower_than_the_model() -> None:
    for name in ("albert", "electra"):
        output = forward(loaded(name), [Row(LONG)], capture=["embed.token", "embed"])
        assert output.row("embed.token", 0).shape == (len(LONG), 16)
        assert output.row("embed", 0).shape == (len(LONG), 32)


def test_a_padding_token_inside_a_prompt_does_not_shift_the_positions_of_roberta() -> None:
    subject = loaded("roberta")
    pad = subject.model.config.pad_token_id
    ids = (5, pad, 17, 33)
    found = forward(subject, [Row(ids), Row(LONG)]).logits[0, : len(ids)]
    with torch.no_grad():
        expected = subject.model(
            input_ids=torch.tensor([ids]), position_ids=torch.arange(pad + 1, pad + 5)[None]
        ).last_hidden_state[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert subject.max_length == 64 - pad - 1


def test_the_projections_of_deberta_are_read_where_they_see_tokens_not_positions() -> None:
    subject = loaded("deberta-v2")
    output = forward(subject, [Row(LONG)], capture=["blocks.1.attn.q", "blocks.1.resid_pre"])
    query = subject.model.encoder.layer[1].attention.self.query_proj
    torch.testing.assert_close(output.row("blocks.1.attn.q", 0).flatten(1), query(output.row("blocks.1.resid_pre", 0)))


def test_a_convolution_between_blocks_is_refused() -> None:
    model = tiny("DebertaV2Model", "DebertaV2Config", **BERT, conv_kernel_size=3, pooler_hidden_size=32)()
    with pytest.raises(LayoutError, match="convolution"):
        subject_of(model, None, name="deberta")


def test_sites_name_the_kind_of_model_they_belong_to() -> None:
    with pytest.raises(SiteError, match=r"encoder\.blocks"):
        loaded("t5").with_(Edit("blocks.0.mlp.out", "zero"))
    with pytest.raises(SiteError, match="attends to itself"):
        loaded("t5").with_(Edit("encoder.blocks.0.cross_attn.out", "zero"))
    with pytest.raises(SiteError, match="layers 0 to 2"):
        loaded("albert").with_(Edit("blocks.3.mlp.out", "zero"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", ("encoder", "none")), ("modernbert-masked-lm", ("encoder", "masked-lm")),
        ("deberta-v2-classifier", ("encoder", "classification")), ("t5-encoder", ("encoder", "none")),
        ("marian", ("encoder-decoder", "causal-lm")), ("bart-without-head", ("encoder-decoder", "none")),
    ],
)  # fmt: skip
def test_kind_and_head(name: str, expected: tuple[str, str]) -> None:
    assert kind_and_head(TINY_ENCODERS[name]()) == expected


def test_heads_of_other_kinds_are_refused_with_the_reason() -> None:
    for name in ("BertForTokenClassification", "BertForQuestionAnswering", "BertForPreTraining"):
        with pytest.raises(ModelError, match="base model"):
            subject_of(tiny(name, "BertConfig", **BERT)(), None, name="bert")
    bart = transformers.BartForSequenceClassification(TINY_ENCODERS["bart"]().config)
    with pytest.raises(ModelError, match="base model"):
        subject_of(bart, None, name="bart")


CLASSIFIERS = {
    "llama": tiny(
        "LlamaForSequenceClassification", "LlamaConfig", hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=100, max_position_embeddings=64, num_labels=3,
    ),
    "gpt2": tiny("GPT2ForSequenceClassification", "GPT2Config", n_embd=32, n_layer=2, n_head=4, vocab_size=100,
    n_positions=64, num_labels=3),
}  # fmt: skip


@pytest.mark.parametrize("pad", [None, 0, 50])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_decoder_classifies_each_row_of_a_batch_as_it_does_alone(name: str, pad: int | None) -> None:
    model = CLASSIFIERS[name]().double()
    model.config.pad_token_id = pad
    subject = subject_of(model, None, name=name)
    assert (subject.kind, subject.head) == ("decoder", "classification")
    batch = [Row(LONG), Row(SHORT), Row((7,))]  # the second ends with 50, which is the padding id in one of the cases
    for padding in ("right", "left"):
        together = forward(subject, batch, padding=padding).logits
        for i, row in enumerate(batch):
            torch.testing.assert_close(together[i], native(subject, row).logits[0], rtol=0, atol=1e-12)
    assert model.config.pad_token_id == pad
    assert not any(module._forward_hooks for module in model.modules())


def test_the_position_a_decoder_classifies_at_is_the_last_one() -> None:
    subject = subject_of(CLASSIFIERS["llama"]().double(), None, name="llama")
    site = "blocks.1.resid_post"
    plain = forward(subject, [Row(LONG), Row(SHORT)])
    for position in range(len(SHORT)):
        edited = Row(SHORT, edits=(Edit(site, "zero", where={"position": position}),))
        moved = bool((forward(subject, [Row(LONG), edited]).logits[1] - plain.logits[1]).abs().max() > 1e-9)
        assert moved == (position == len(SHORT) - 1)
