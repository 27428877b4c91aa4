"""Shared prefixes and the causal cone against their plain forms, on every architecture that trusts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import EditError
from pellucid.engine import cone, scoring, trie
from pellucid.engine.capture import capture
from pellucid.engine.question import ask
from pellucid.engine.variants import remove
from pellucid.models.layout import block_sites
from tests.state import changed, model_state
from tests.tiny import TINY

FEW = ("gpt2", "llama", "neox-parallel", "mixtral")
DECODERS = [
    pytest.param(name, marks=[] if name in FEW else [pytest.mark.all_architectures])
    for name in (
        "gpt2",
        "neox-parallel",
        "neox-sequential",
        "opt",
        "opt-post-norm",
        "llama",
        "llama-tied-bias",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen2-moe",
        "qwen3-moe",
        "gemma",
        "phi3",
        "olmo2",
        "granite",
    )
]
IDS = [11, 42, 7, 23, 64, 5, 91, 33, 12, 77, 50, 28]
TARGETS: dict[str, Any] = {
    "one token": 17,
    "matrix": Target.continuation([3, 4, 5, 6], each=True),
    "contrast of continuations": Target.continuation([3, 4, 5], contrast=[7, 8]),
    "entropy": Target(17, measure="entropy"),
    "function": lambda logits: logits[:, 3] - logits[:, 4],
}


def trusted(name: str, dtype: torch.dtype = torch.float64) -> pellucid.Subject:
    subject = pellucid.load(TINY[name]().to(dtype))
    assert scoring.trusted(subject)
    return subject


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("target", TARGETS)
def test_shared_scores_equal_plain_ones(name: str, target: str) -> None:
    subject = trusted(name)
    question = ask(subject, IDS, target=TARGETS[target])
    rng = np.random.default_rng(0)
    masks = np.concatenate([~np.eye(12, dtype=bool), rng.random((20, 12)) < 0.7])
    variants = list(
        dict.fromkeys(
            remove(subject, question.tokens, question.units, mask, how)
            for how in ("delete", 3)
            for mask in masks
            if mask.any()
        )
    )
    plain = scoring.score_plain(subject, question.tokens, question.readout, variants)
    shared = scoring.score_shared(subject, question.tokens, question.readout, variants)
    np.testing.assert_allclose(shared, plain, atol=2e-6)  # rotations and norms that are float32 in every dtype


def test_a_trie_computes_each_shared_token_once() -> None:
    """Leave-one-out of n distinct tokens: row i shares i tokens with the whole, so n + sum(n - 1 - i) tokens are
    left."""
    ids = tuple(range(100, 200))
    sequences = [ids, *(ids[:i] + ids[i + 1 :] for i in range(100))]
    roots = trie.build(sequences, 1)
    assert trie.tokens_in(roots) <= 100 + sum(99 - i for i in range(100)) + 100 * trie.LEAST_SAVING
    assert trie.tokens_in(roots) < 0.6 * sum(len(s) for s in sequences)
    reads = sorted(i for root in roots for i, _, _ in trie._all_reads(root))
    assert reads == list(range(101)), "every sequence is read exactly once"


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_the_cone_equals_full_forwards_at_every_site(name: str) -> None:
    subject = trusted(name)
    before = model_state(subject.model)
    other = [int(i) for i in np.random.default_rng(1).integers(5, 99, size=12)]
    for target in (17, TARGETS["matrix"]):
        question = ask(subject, IDS, target=target)
        for layer in range(subject.layers):
            for site in block_sites(subject.model, subject.need_layout(), "", layer):
                if site.split(".")[-1] in ("q_rot", "k_rot", "scores", "pattern", "router"):
                    continue
                value = capture(subject, other, [site])[site]
                edits = [(Edit(site, "patch_from", value, {"position": p}),) for p in (0, 4, 11)]
                edits.append((Edit(site, lambda v, c: v * 2 + 1, where={"position": -3}),))
                plain = cone.score_edits_plain(subject, question.tokens, question.readout, edits)
                fast = cone.score_edits(subject, question.tokens, question.readout, edits)
                np.testing.assert_allclose(fast, plain, atol=2e-6, err_msg=site)
    assert changed(before, model_state(subject.model)) == []


def test_the_cone_runs_only_its_cone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual patching of L layers x T positions: tokens through each block are counted at the block itself."""
    subject = trusted("llama")
    seen: list[int] = []
    for block in subject.model.model.layers:
        own = block.forward

        def counted(hidden: torch.Tensor, *args: Any, own: Any = own, **kwargs: Any) -> Any:
            seen.append(hidden.shape[0] * hidden.shape[1])
            return own(hidden, *args, **kwargs)

        monkeypatch.setattr(block, "forward", counted)
    question = ask(subject, list(range(10, 70)), target=17)
    edits = [
        (Edit(f"blocks.{layer}.resid_pre", "zero", where={"position": p}),) for layer in range(2) for p in range(60)
    ]
    seen.clear()
    cone.score_edits(subject, question.tokens, question.readout, edits)
    fast = sum(seen)
    seen.clear()
    cone.score_edits_plain(subject, question.tokens, question.readout, edits)
    assert fast < 0.62 * sum(seen)


def test_an_edit_that_raises_in_the_cone_leaves_the_model_alone() -> None:
    subject = trusted("gpt2")
    before = model_state(subject.model)

    def explode(value: torch.Tensor, context: object) -> torch.Tensor:
        raise ZeroDivisionError("planted")

    question = ask(subject, IDS, target=17)
    with pytest.raises(EditError, match="planted"):
        cone.score_edits(
            subject,
            question.tokens,
            question.readout,
            [(Edit("blocks.1.mlp.out", explode, where={"position": p}),) for p in (1, 2)],
        )
    assert changed(before, model_state(subject.model)) == []


def test_edited_subjects_and_windows_take_the_plain_way() -> None:
    assert not scoring.trusted(trusted("gpt2").with_(Edit("blocks.0.mlp.out", "zero")))
    assert not scoring.trusted(pellucid.load(TINY["mistral-sliding"]()))
