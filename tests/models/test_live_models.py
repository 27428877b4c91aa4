"""Models as people have them: offloaded, quantised, adapted, mixed, in training, compiled; each works or is refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, LayoutError, ModelError
from pellucid.models.edits import Edit
from pellucid.models.forward import Row, forward
from pellucid.models.proofs import proofs
from pellucid.models.subject import Subject
from tests.state import changed, model_state
from tests.tiny_encoders import TINY_ENCODERS, tiny

LLAMA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100, "max_position_embeddings": 64,
}  # fmt: skip
ROWS = [Row((5, 17, 33, 8, 60, 41)), Row((9, 12, 50))]
SITE = "blocks.1.attn.z"


def llama(**options: Any) -> Any:
    return tiny("LlamaForCausalLM", "LlamaConfig", **{**LLAMA, **options})()


def native(model: Any, row: Row) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([row.ids])).logits[0]


def works(subject: Subject, model: Any, atol: float = 1e-5) -> None:
    """Check that the model is explained as it runs by itself: its logits, reading, editing and gradients."""
    output = forward(subject, ROWS, capture=["blocks.0.resid_pre", SITE, "blocks.1.attn.pattern"])
    for i, row in enumerate(ROWS):
        found = output.logits[i, : len(row.ids)] if output.logits.ndim == 3 else output.logits[i]
        torch.testing.assert_close(found.float(), native(model, row).float(), rtol=0, atol=atol)
    edited = forward(subject.with_(Edit(SITE, "zero")), ROWS, capture=[SITE])
    assert not edited.row(SITE, 0).any()
    assert not torch.equal(edited.logits, output.logits)
    if "gradients" in subject.capabilities:
        nudge = torch.zeros(len(ROWS[0].ids), 1, requires_grad=True)
        trace = forward(subject.with_(Edit("blocks.0.resid_pre", "add", nudge)), ROWS[:1], grad=True)
        (gradient,) = torch.autograd.grad(trace.logits.float().sum(), nudge)
        assert torch.isfinite(gradient).all()
        assert gradient.any()


def test_a_device_map(unchanged: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = unchanged(accelerate.dispatch_model(llama(), device_map={"": "cpu"}))
    works(pellucid.load(model), llama())


def test_weights_offloaded_to_memory() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(llama(), execution_device="cpu")
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    subject = pellucid.load(model)
    works(subject, llama())
    assert subject.device == "cpu"
    assert "weights" not in subject.capabilities
    assert subject.weights_hash() == pellucid.load(model).weights_hash()
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


def test_weights_offloaded_to_disk(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    works(pellucid.load(accelerate.disk_offload(llama(), str(tmp_path), execution_device="cpu")), llama())


@pytest.mark.parametrize("name", ["bert-classifier", "t5"])
def test_other_families_offloaded(name: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    offloaded, plain = (
        pellucid.load(model) for model in (accelerate.cpu_offload(TINY_ENCODERS[name](), "cpu"), TINY_ENCODERS[name]())
    )
    rows = [Row(row.ids, (0, 3, 4) if plain.kind == "encoder-decoder" else ()) for row in ROWS]
    torch.testing.assert_close(forward(offloaded, rows).logits, forward(plain, rows).logits)


def test_a_model_that_accelerate_cannot_offload_is_refused() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(
        TINY_ENCODERS["deberta-v2"](), "cpu"
    )  # reads a weight outside the module that holds it
    with pytest.raises(ModelError, match="by itself"):
        pellucid.load(model)


def test_a_folder_with_a_device_map(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    llama().save_pretrained(tmp_path)
    works(pellucid.load(tmp_path, device_map={"": "cpu"}), llama())


def test_integer_weights_of_torchao() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantisation = pytest.importorskip("torchao.quantization")
        model = llama()
        quantisation.quantize_(model, quantisation.Int8WeightOnlyConfig())
    subject = pellucid.load(model)
    works(subject, model)
    assert "weights" not in subject.capabilities
    assert "gradients" in subject.capabilities
    assert subject.weights_hash() != pellucid.load(llama()).weights_hash()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_integer_weights_packed_by_torch() -> None:
    # Activations are rounded over the whole batch here, so a batch is not the same as one by one, and the proofs say
    # so.
    model = torch.ao.quantization.quantize_dynamic(llama(), {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises((LayoutError, ModelError)):
        pellucid.load(model)


adapters = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # peft asks in the old words


def adapted(model: Any, **options: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, **options)).eval()


@adapters
def test_an_adapter_is_part_of_what_is_explained(unchanged: Any) -> None:
    model = unchanged(
        adapted(llama(), target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM")
    )
    subject = pellucid.load(model)
    works(subject, model)
    assert (native(model, ROWS[0]) - native(llama(), ROWS[0])).abs().max() > 1e-3
    assert "weights" not in subject.capabilities
    up = "blocks.0.mlp.up"
    output = forward(subject, ROWS[:1], capture=[up, "blocks.0.resid_mid"])
    block = subject.model.model.layers[0]
    torch.testing.assert_close(
        output.row(up, 0), block.mlp.up_proj(block.post_attention_layernorm(output.row("blocks.0.resid_mid", 0)))
    )


@adapters
def test_caches_see_that_an_adapter_was_switched_off() -> None:
    model = adapted(llama(), target_modules=["q_proj", "v_proj"])
    subject = pellucid.load(model)
    on = subject.weights_state(), subject.weights_hash()
    with model.disable_adapter():
        off = subject.weights_state(), subject.weights_hash()
        torch.testing.assert_close(forward(subject, ROWS[:1]).logits[0], native(llama(), ROWS[0]))
    assert on[0] != off[0]
    assert on[1] != off[1]
    assert (subject.weights_state(), subject.weights_hash()) == on


@adapters
def test_an_adapter_with_a_head_of_its_own() -> None:
    model = adapted(
        tiny("LlamaForSequenceClassification", "LlamaConfig", **LLAMA, num_labels=3, pad_token_id=0)(),
        target_modules=["q_proj"],
        task_type="SEQ_CLS",
    )
    works(pellucid.load(model), model)


@adapters
def test_an_adapter_on_the_embedding_and_a_merged_one() -> None:
    model = adapted(llama(tie_word_embeddings=False), target_modules=["embed_tokens", "q_proj", "lm_head"])
    works(pellucid.load(model), model)
    merged = model.merge_and_unload()
    subject = pellucid.load(merged)
    works(subject, model)
    assert "weights" in subject.capabilities


@adapters
def test_adapters_that_add_virtual_tokens_are_refused() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ModelError, match="virtual tokens"):
        pellucid.load(model)


@pytest.mark.parametrize("name", list(TINY_ENCODERS)[::4])
def test_bfloat16(name: str) -> None:
    subject = pellucid.load(TINY_ENCODERS[name]().bfloat16())
    assert subject.dtype == "bfloat16"
    assert all(proof.ok for proof in proofs(subject))


def test_bfloat16_of_a_decoder() -> None:
    model = llama().bfloat16()
    works(pellucid.load(model), model, atol=0.02)


def test_norms_in_single_precision() -> None:
    model = TINY_ENCODERS["bert-classifier"]().bfloat16()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.float()
    subject = pellucid.load(model)
    assert subject.dtype == "bfloat16"
    works(subject, model, atol=0.02)


def test_a_feed_forward_layer_in_single_precision() -> None:
    model = TINY_ENCODERS["t5-gated"]().bfloat16()  # as flan-t5 is loaded: `wo` stays in float32
    for block in (*model.encoder.block, *model.decoder.block):
        block.layer[-1].DenseReluDense.wo.float()
    subject = pellucid.load(model)
    row = Row(ROWS[0].ids, (0, 3, 4))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([row.ids]), decoder_input_ids=torch.tensor([row.decoder_ids])).logits[0]
    torch.testing.assert_close(forward(subject, [row]).logits[0], expected)


def test_an_unembedding_in_single_precision() -> None:
    model = llama(tie_word_embeddings=False).bfloat16()
    model.lm_head.float()
    with pytest.raises(ModelError, match="by itself"):  # bfloat16 states do not multiply float32 weights
        pellucid.load(copy.deepcopy(model))
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    works(pellucid.load(model), model, atol=0.02)
    assert len(model.lm_head._forward_pre_hooks) == 1


@adapters
def test_adapters_in_another_precision() -> None:
    model = adapted(llama().bfloat16(), target_modules=["q_proj", "down_proj"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16, torch.float32}
    works(pellucid.load(model), model, atol=0.02)


def test_a_model_in_training(unchanged: Any) -> None:
    model = TINY_ENCODERS["bert-classifier"]()
    expected = [native(model, row) for row in ROWS]
    model.train()
    model.bert.encoder.layer[0].eval()  # a part that its owner froze
    model.activation_checkpointing_enable()
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    state = torch.random.get_rng_state()
    subject = pellucid.load(unchanged(model))
    trace = forward(subject, ROWS, capture=["blocks.0.mlp.post"], grad=True)
    torch.testing.assert_close(trace.logits, torch.stack(expected))
    (gradient,) = torch.autograd.grad(trace.logits[:, 0].sum(), trace.captured["blocks.0.mlp.post"])
    assert gradient.any()
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.is_activation_checkpointing


def test_compiled_models() -> None:
    model = llama()
    works(pellucid.load(torch.compile(model, backend="eager")), model)  # the model inside is explained
    for part in ("whole", "block"):
        model = llama()
        if part == "whole":
            model.compile(backend="eager")
        else:
            model.model.layers[1] = torch.compile(model.model.layers[1], backend="eager")
        with pytest.raises(ModelError, match=r"before torch\.compile"):
            pellucid.load(model)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights(tied: bool, unchanged: Any) -> None:
    model = unchanged(llama(tie_word_embeddings=tied))
    works(pellucid.load(model), model)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("name", ["bert-classifier", "deberta-v2"])
def test_tuples_instead_of_named_outputs(name: str) -> None:
    model = TINY_ENCODERS[name]()
    expected = forward(pellucid.load(model), ROWS).logits
    model.config.return_dict = False
    torch.testing.assert_close(forward(pellucid.load(model), ROWS).logits, expected)


@pytest.mark.parametrize("name", ["llama", "bert-classifier", "albert", "deberta-v2", "bart"])
def test_a_model_is_as_before_when_an_edit_raises(name: str) -> None:
    model = llama() if name == "llama" else TINY_ENCODERS[name]()
    model.train()
    before = model_state(model), str(model.config), torch.random.get_rng_state()
    subject = pellucid.load(model)
    prefix = "decoder." if subject.kind == "encoder-decoder" else ""

    def fails(value: torch.Tensor, context: Any) -> torch.Tensor:
        raise KeyError("on purpose")

    rows = [Row(row.ids, (2, 3) if prefix else ()) for row in ROWS]
    for part in ("resid_pre", "attn.scores", "attn.pattern", "attn.z", "resid_post"):
        with pytest.raises((KeyError, EditError)):
            forward(subject.with_(Edit(f"{prefix}blocks.1.{part}", fails)), rows)
    assert not changed(before[0], model_state(model))
    assert (str(model.config), str(before[2])) == (before[1], str(torch.random.get_rng_state()))
