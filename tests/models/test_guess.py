"""Unknown architectures are guessed and proved, or refused with the row to write; wrong layouts are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from pellucid.core.errors import LayoutError
from pellucid.models import layout as layouts
from pellucid.models.edits import Edit
from pellucid.models.forward import Row, forward
from pellucid.models.guess import guess_layout
from pellucid.models.load import kind_and_head, subject_of
from pellucid.models.proofs import proofs
from tests.state import changed, model_state
from tests.tiny_decoders import TINY_DECODERS, factory
from tests.unseen import BROKEN, unseen

BERT = BertConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocab_size=100,
    max_position_embeddings=64,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_renamed_llama_is_guessed_and_proved(dtype: torch.dtype) -> None:
    model = unseen().to(dtype)
    before = model_state(model)
    subject: Any = subject_of(model, None, name="unseen")
    assert changed(before, model_state(model)) == []
    assert subject.layout.source == "guess"
    assert all(proof.ok for proof in proofs(subject))
    stack = subject.layout.stacks[""]
    assert (stack.blocks, stack.attention, stack.embed_token, stack.final_norm) == ("torso", "mixer", "tokens", "crown")
    assert (stack.heads.query, stack.heads.key_value, stack.heads.width) == (4, 2, 8)
    assert {part: tap.module for part, tap in stack.taps.items()} == {
        "resid_pre": "",
        "attn.q": "mixer.query",
        "attn.k": "mixer.key_",
        "attn.v": "mixer.val",
        "attn.z": "mixer.merge",
        "attn.out": "mixer.merge",
        "resid_mid": "even_b",
        "mlp.gate": "ffn.second",
        "mlp.up": "ffn.first",
        "mlp.post": "ffn.back",
        "mlp.out": "ffn",
        "resid_post": "",
    }


def test_a_guessed_model_can_be_edited() -> None:
    model = unseen()
    subject = subject_of(model, None, name="unseen")
    edit = Edit("blocks.1.attn.z", "zero", where={"head": 2})
    output = forward(subject, [Row((5, 6, 7, 8), edits=(edit,))], capture=["blocks.1.attn.z", "blocks.1.attn.out"])
    z = output.row("blocks.1.attn.z", 0)
    assert float(z[:, 2].abs().max()) == 0
    assert float(z[:, 1].abs().min()) > 0
    torch.testing.assert_close(
        model.body.torso[1].mixer.merge(z.flatten(1)).detach(), output.row("blocks.1.attn.out", 0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "neox-sequential", "falcon-new", "opt-post-norm", "bert"])
def test_known_families_are_guessed_without_their_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = factory(lambda: BertForMaskedLM(BERT))() if name == "bert" else TINY_DECODERS[name]()
    row: Any = layouts.row_layout(model)
    monkeypatch.setattr(layouts, "known_types", dict)
    subject: Any = subject_of(model, None, name=name)
    assert subject.layout.source == "guess"
    found, known = subject.layout.stacks[""], row.stacks[""]
    assert (found.blocks, found.norm, found.parallel, found.heads, found.interface) == (
        known.blocks,
        known.norm,
        known.parallel,
        known.heads,
        known.interface,
    )
    assert found.taps.keys() == known.taps.keys()
    wanted = list(layouts.block_sites(model, row, "", 1))
    ours = forward(subject, [Row((9, 8, 7, 6, 5))], capture=wanted)
    theirs = forward(
        subject_of(model, None, name=name, layout=row, proved=False), [Row((9, 8, 7, 6, 5))], capture=wanted
    )
    for site in wanted:
        torch.testing.assert_close(ours.row(site, 0), theirs.row(site, 0), msg=site)


def test_a_model_that_cannot_be_guessed_is_refused_with_the_row_to_write() -> None:
    model = unseen()
    for storey in model.body.torso:
        storey.forward = lambda stream, turns, mask, s=storey: (
            stream + 0.3 * s.mixer(s.even_a(stream), turns, mask) + s.ffn(s.even_b(stream))
        )
    with pytest.raises(
        LayoutError, match=r"UnseenForCausalLM could not be guessed.*add up to the output of a block"
    ) as caught:
        subject_of(model, None, name="unseen")
    text = str(caught.value)
    assert "MODEL_TYPES = ('unseen',)" in text
    assert "blocks='torso'" in text
    assert "\"attn.z\": Tap('mixer.merge'" in text
    assert re.search(r'"mlp.out": \?', text)


def test_a_model_without_blocks_is_not_guessed() -> None:
    model = unseen()
    model.body.torso = torch.nn.ModuleList()
    assert guess_layout(model, *kind_and_head(model)) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("attn.out taps a norm", "each block's output = input \\+ contributions.*layer 0"),
        ("q and k are swapped in the joint projection", "q moves its own row of the scores"),
        ("resid_mid taps the other norm", "each block's output = input \\+ contributions.*resid_mid"),
        ("the head count is wrong", "shapes"),
        ("heads are laid out one after the other", "attention pattern x values = head outputs"),
        ("an edit of resid_mid misses the skip connection", "an edit of resid_mid flows into resid_post"),
        ("gate and up are swapped", "mlp.post is proportional to mlp.up"),
        ("a module does not exist", "LlamaDecoderLayer has no 'attention'"),
    ],
)
def test_a_broken_layout_is_refused(name: str, reason: str) -> None:
    model, layout = BROKEN[name]()
    before = model_state(model)
    with pytest.raises(LayoutError, match=f"failed the proof.*{reason}.*mend its row"):
        subject_of(model, None, name=name, layout=layout)
    assert changed(before, model_state(model)) == []
