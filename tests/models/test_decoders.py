"""Every decoder family: the proofs at load, and each family's peculiarities against the native model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pellucid.core.errors import LayoutError, SiteError
from pellucid.models.edits import Edit
from pellucid.models.forward import Row, forward
from pellucid.models.load import subject_of
from pellucid.models.proofs import proofs
from tests.state import changed, model_state
from tests.tiny_decoders import TINY_DECODERS

IDS = (11, 42, 7, 93, 25, 60, 33)


def _subject(name: str, implementation: str = "", dtype: torch.dtype = torch.float32) -> Any:
    model = TINY_DECODERS[name]()
    if implementation and model.config._attn_implementation != implementation:
        other = type(model)._from_config(model.config, attn_implementation=implementation).eval()
        other.load_state_dict(model.state_dict())
        model = other
    model = model.to(dtype)
    return subject_of(model, None, name=name, proved=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY_DECODERS)
def test_all_proofs_pass(name: str, dtype: torch.dtype) -> None:
    subject = _subject(name, dtype=dtype)
    before = model_state(subject.model)
    found = list(proofs(subject))
    assert subject.layout.source == "row"
    assert len(found) >= 13
    assert [(p.name, p.figure, p.bar, p.detail) for p in found if not p.ok] == []
    assert changed(before, model_state(subject.model)) == []


@pytest.mark.parametrize(
    "name", ["llama", "qwen3-moe", "phi3", "falcon-new", "falcon-sequential", "falcon-alibi", "opt", "neox-parallel"]
)
def test_proofs_pass_when_loaded_with_eager_attention(name: str) -> None:
    assert [p for p in proofs(_subject(name, "eager", torch.float64)) if not p.ok] == []


@pytest.mark.parametrize("name", TINY_DECODERS)
def test_patterns_are_those_that_the_model_returns(name: str) -> None:
    subject = _subject(name, "eager")
    layers = subject.layers
    sites = [f"blocks.{layer}.attn.{step}" for layer in range(layers) for step in ("pattern", "scores")]
    output = forward(subject, [Row(IDS)], capture=sites)
    native = subject.model(input_ids=torch.tensor([IDS]), output_attentions=True, use_cache=False).attentions
    for layer in range(layers):
        pattern = output.row(f"blocks.{layer}.attn.pattern", 0)
        torch.testing.assert_close(pattern, native[layer][0].detach(), atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(
            output.row(f"blocks.{layer}.attn.scores", 0).softmax(-1), pattern, atol=2e-6, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["falcon-new", "falcon-multi-query", "falcon-sequential", "mistral-sliding", "gpt2"])
def test_fused_and_eager_attention_open_to_the_same_steps(name: str) -> None:
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.scores"]
    fused, eager = (forward(_subject(name, kind), [Row(IDS)], capture=sites) for kind in ("sdpa", "eager"))
    torch.testing.assert_close(fused.row(sites[0], 0), eager.row(sites[0], 0), atol=2e-6, rtol=1e-5)
    seen = fused.row(sites[0], 0) > 0
    torch.testing.assert_close(fused.row(sites[1], 0)[seen], eager.row(sites[1], 0)[seen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "granite", "neox-parallel", "olmo2"])
def test_rotated_queries_and_keys_give_the_scores(name: str) -> None:
    subject = _subject(name)
    parts = ("q", "k", "q_rot", "k_rot", "scores")
    output = forward(subject, [Row(IDS)], capture=[f"blocks.1.attn.{part}" for part in parts])
    q, k, q_rot, k_rot, scores = (output.row(f"blocks.1.attn.{part}", 0) for part in parts)
    scaling = submodule_scaling(subject)
    repeat = q.shape[1] // k.shape[1]
    expected = torch.einsum("qhd,khd->hqk", q_rot, k_rot.repeat_interleave(repeat, 1)) * scaling
    below = torch.ones(len(IDS), len(IDS)).tril().bool()
    torch.testing.assert_close(
        scores[:, below][:, -1], expected[:, below][:, -1]
    )  # the last row sees itself in every family
    same_length = torch.allclose(q.norm(dim=-1), q_rot.norm(dim=-1), rtol=1e-4)
    assert same_length == (name in ("llama", "granite", "neox-parallel"))  # the others norm q before they rotate it
    assert not torch.allclose(q, q_rot)


def submodule_scaling(subject: Any) -> float:
    block = subject.model.base_model.layers[1]
    attention: Any = getattr(block, "self_attn", None) or block.attention
    return float(attention.scaling)


def test_a_sliding_window_hides_old_positions() -> None:
    output = forward(_subject("mistral-sliding"), [Row(IDS)], capture=["blocks.0.attn.pattern"])
    pattern = output.row("blocks.0.attn.pattern", 0)
    distance = torch.arange(len(IDS))[:, None] - torch.arange(len(IDS))[None]
    inside = (distance >= 0) & (distance < 3)
    assert bool((pattern[:, inside] > 0).all())
    assert bool((pattern[:, ~inside] == 0).all())


def test_norms_after_sub_layers_count_inside_the_contribution() -> None:
    for name, norms in (
        ("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("olmo2", ("post_attention_layernorm", "post_feedforward_layernorm")),
    ):
        subject = _subject(name)
        parts = ("attn.out_raw", "attn.out", "mlp.out_raw", "mlp.out")
        output = forward(subject, [Row(IDS)], capture=[f"blocks.0.{part}" for part in parts])
        value = {part: output.row(f"blocks.0.{part}", 0) for part in parts}
        block = subject.model.model.layers[0]
        torch.testing.assert_close(getattr(block, norms[0])(value["attn.out_raw"]), value["attn.out"])
        torch.testing.assert_close(getattr(block, norms[1])(value["mlp.out_raw"]), value["mlp.out"])


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe"])
@pytest.mark.parametrize("grouped", [False, True])
def test_an_edit_of_the_router_changes_the_choice_of_experts(name: str, grouped: bool) -> None:
    subject = _subject(name)
    subject.model.set_experts_implementation("grouped_mm" if grouped else "eager")
    wanted = torch.tensor([0.5, -3.0, 2.0, -4.0])
    site = "blocks.1.router"
    edit = Edit(site, "set", wanted, where={"position": 4})
    rows = [Row(IDS), Row(IDS[:5], edits=(edit,))]
    norm_in = "blocks.1.resid_mid"
    output = forward(subject, rows, capture=[site, norm_in, "blocks.1.mlp.out"])
    block = subject.model.model.layers[1]
    hidden = block.post_attention_layernorm(output.row(norm_in, 1))[4:5]
    torch.testing.assert_close(
        output.row(site, 0),
        torch.nn.functional.linear(block.post_attention_layernorm(output.row(norm_in, 0)), block.mlp.gate.weight),
    )
    torch.testing.assert_close(output.row(site, 1)[4], wanted)
    weights = wanted.softmax(-1)[[2, 0]]
    if getattr(block.mlp.gate, "norm_topk_prob", True):
        weights = weights / weights.sum()
    experts = block.mlp.experts
    expected = torch.zeros_like(hidden)
    for weight, e in zip(weights, (2, 0), strict=True):
        gate, up = (hidden @ experts.gate_up_proj[e].T).chunk(2, -1)
        expected = expected + weight * (torch.nn.functional.silu(gate) * up @ experts.down_proj[e].T)
    if name == "qwen2-moe":
        expected = expected + torch.sigmoid(block.mlp.shared_expert_gate(hidden)) * block.mlp.shared_expert(hidden)
    torch.testing.assert_close(output.row("blocks.1.mlp.out", 1)[4:5], expected.detach(), atol=1e-6, rtol=1e-4)


def test_dense_layers_among_experts_keep_their_neurons() -> None:
    subject = _subject("qwen2-moe")
    output = forward(subject, [Row(IDS)], capture=["blocks.0.mlp.post", "blocks.1.router"])
    assert output.row("blocks.0.mlp.post", 0).shape == (len(IDS), 48)
    assert output.row("blocks.1.router", 0).shape == (len(IDS), 4)
    with pytest.raises(SiteError, match=r"Layer 1 .* no site 'mlp.post'.*use mlp.out"):
        forward(subject, [Row(IDS)], capture=["blocks.1.mlp.post"])
    with pytest.raises(SiteError, match=r"Layer 0 .* no site 'router'"):
        forward(subject, [Row(IDS)], capture=["blocks.0.router"])


def test_halves_of_one_projection_are_gate_and_up() -> None:
    subject = _subject("phi3")
    parts = ("mlp.gate", "mlp.up", "mlp.post")
    edit = Edit("blocks.1.mlp.gate", "zero", where={"position": 2})
    output = forward(subject, [Row(IDS), Row(IDS, edits=(edit,))], capture=[f"blocks.1.{part}" for part in parts])
    gate, up, post = (output.row(f"blocks.1.{part}", 0) for part in parts)
    torch.testing.assert_close(torch.nn.functional.silu(gate) * up, post)
    torch.testing.assert_close(output.row("blocks.1.mlp.up", 1), up)
    assert float(output.row("blocks.1.mlp.post", 1)[2].abs().max()) == 0


@pytest.mark.parametrize(
    ("name", "part", "advice"),
    [
        ("neox-parallel", "resid_mid", "use resid_pre or resid_post"),
        ("gptj", "resid_mid", "use resid_pre or resid_post"),
        ("gpt2", "mlp.gate", "use mlp.up or mlp.post"),
        ("bloom", "attn.q_rot", "use attn.q or attn.scores"),
        ("mixtral", "mlp.post", "use router or mlp.out"),
        ("llama", "attn.out_raw", "use attn.out"),
        ("llama", "cross_attn.out", "use attn in its place"),
        ("llama", "router", "it has attn.k"),
    ],
)
def test_a_missing_site_names_the_alternative(name: str, part: str, advice: str) -> None:
    with pytest.raises(SiteError, match=advice):
        forward(_subject(name), [Row(IDS)], capture=[f"blocks.0.{part}"])


def test_bloom_with_normed_residuals_is_refused() -> None:
    model = TINY_DECODERS["bloom"]()
    model.config.apply_residual_connection_post_layernorm = True
    with pytest.raises(LayoutError, match="apply_residual_connection_post_layernorm"):
        subject_of(model, None, name="bloom")
