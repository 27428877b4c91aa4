"""Path patching against a GPT-2 written out by hand, and on the planted edges of constructed models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.engine.capture import capture
from pellucid.engine.cone import score_edits
from pellucid.engine.paths import receiver_of, senders_to
from pellucid.engine.targets import resolve
from pellucid.methods.patching.path_patching import path_patching
from pellucid.models.edits import Edit
from pellucid.zoo import truth
from tests import plain

CORRUPT = [11, 42, 8, 23, 64, 5]


def norms(x: torch.Tensor, gain: Any) -> torch.Tensor:
    """Return the layer norm."""
    return torch.nn.functional.layer_norm(x, (32,), gain.weight, gain.bias, gain.eps)


class Written:
    """GPT-2 with every head's and layer's addition to the stream apart, any of which can be given."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def head(self, layer: int, head: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return what a head writes if its inputs read these streams."""
        block = self.model.transformer.h[layer]
        part = slice(8 * head, 8 * head + 8)
        streams = [norms(x, block.ln_1) for x in (q, k, v)]
        q, k, v = (block.attn.c_attn(x).split(32, -1)[i][:, part] for i, x in enumerate(streams))
        mask = torch.ones(len(q), len(q)).tril().bool()
        pattern = (q @ k.T / 8**0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        return pattern @ v @ block.attn.c_proj.weight[part]

    def run(self, ids: list[int], given: dict[Any, torch.Tensor]) -> tuple[float, dict[Any, torch.Tensor]]:
        """Return the target's logit and what each part writes; `given` replaces that."""
        transformer, out = self.model.transformer, {}
        with torch.no_grad():
            x = transformer.wte(torch.tensor(ids)) + transformer.wpe(torch.arange(len(ids)))
            out["embed"] = x
            for layer, block in enumerate(transformer.h):
                out["stream", layer] = x
                written = [given.get((layer, h), self.head(layer, h, x, x, x)) for h in range(4)]
                out |= {(layer, h): value for h, value in enumerate(written)}
                x = x + torch.stack(written).sum(0) + block.attn.c_proj.bias
                out["middle", layer] = x
                out[layer, -1] = given.get((layer, -1), block.mlp(norms(x, block.ln_2)))
                x = x + out[layer, -1]
            out["stream", len(transformer.h)] = x + given.get("logits", 0)
            logits = self.model.lm_head(norms(out["stream", len(transformer.h)], transformer.ln_f))
        return float(logits[-1, plain.TARGET]), out


@pytest.fixture(scope="module")
def made() -> tuple[Written, pellucid.Subject, dict[Any, torch.Tensor], dict[Any, torch.Tensor], float]:
    """Give the model by hand and as a subject, the parts of both runs, and the corrupted score."""
    model = plain.tiny()
    written = Written(model)
    base, bad = written.run(CORRUPT, {})
    return written, pellucid.load(model), written.run(plain.IDS, {})[1], bad, base


def test_direct_paths_by_hand(made: Any) -> None:
    written, subject, good, bad, base = made
    senders = [(0, 0), (0, 3), (0, -1)]
    for name, inputs in (("blocks.1.attn.2", "qkv"), ("blocks.1.attn.2.k", "k"), ("blocks.1.attn.2.q", "q")):
        found = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, receiver=name)
        for sender in senders:
            seen = bad["stream", 1] + good[sender] - bad[sender]
            streams = [seen if one in inputs else bad["stream", 1] for one in "qkv"]
            with torch.no_grad():
                value = written.head(1, 2, *streams)
            expected = written.run(CORRUPT, {(1, 2): value})[0] - base
            assert found.values[sender] == pytest.approx(expected, abs=1e-10)
        assert np.all(found.values[1] == 0)  # nothing in its own block reaches a head
        assert np.abs(found.values[0]).max() > 1e-7


def test_paths_into_feed_forward_layers_and_logits_by_hand(made: Any) -> None:
    written, subject, good, bad, base = made
    block = written.model.transformer.h[1]
    found = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, receiver="blocks.1.mlp")
    for sender in [(0, 1), (0, -1), (1, 3)]:
        seen = bad["middle", 1] + good[sender] - bad[sender]
        with torch.no_grad():
            value = block.mlp(norms(seen, block.ln_2))
        expected = written.run(CORRUPT, {(1, -1): value})[0] - base
        assert found.values[sender] == pytest.approx(expected, abs=1e-10)
    last = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET)
    for sender in [(0, 1), (0, -1), (1, 3), (1, -1)]:
        expected = written.run(CORRUPT, {"logits": good[sender] - bad[sender]})[0] - base
        assert last.values[sender] == pytest.approx(expected, abs=1e-10)
    clean = written.run(plain.IDS, {})[0]
    assert last.evidence[0].values["together"] == pytest.approx(clean - base, abs=1e-10)


def test_paths_through_later_parts_by_hand(made: Any) -> None:
    """From a head of block 0 to a head of block 1: through block 0's feed-forward layer, whatever is frozen."""
    written, subject, good, bad, base = made
    sent = written.run(CORRUPT, {(0, 1): good[0, 1]})[1]
    with torch.no_grad():
        value = written.head(1, 2, *[sent["stream", 1]] * 3)
    expected = written.run(CORRUPT, {(1, 2): value})[0] - base
    for through in ("mlps", "all"):
        found = path_patching(
            subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, receiver="blocks.1.attn.2", through=through
        )
        assert found.values[0, 1] == pytest.approx(expected, abs=1e-10)
    whole = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, through="all")
    frozen = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, through="mlps")
    assert whole.values[0, 1] == pytest.approx(written.run(CORRUPT, {(0, 1): good[0, 1]})[0] - base, abs=1e-10)
    held = {(0, 1): good[0, 1]} | {(1, h): bad[1, h] for h in range(4)}
    assert frozen.values[0, 1] == pytest.approx(written.run(CORRUPT, held)[0] - base, abs=1e-10)


@pytest.mark.parametrize("name", ["two-step", "gpt2-induction"])
def test_names_exactly_the_planted_edges(name: str) -> None:
    subject, pair = pellucid.load(f"zoo:truth/{name}"), truth.answer(name)["pairs"][0]
    planted = {(source, end): effect for source, end, effect in pair["edges"]}
    heads = subject.need_layout().stacks[""].heads.query
    for end in {end for _, end in planted}:
        found = path_patching(
            subject, pair["clean"], corrupt=pair["corrupt"], target=pair["target"], contrast=pair["contrast"],
            receiver=end,
        )  # fmt: skip
        for layer in range(subject.layers):
            for part in range(heads + 1):
                source = f"blocks.{layer}.mlp" if part == heads else f"blocks.{layer}.attn.{part}"
                assert found.values[layer, part] == pytest.approx(planted.get((source, end), 0), abs=0.02)
        assert found.evidence[0].values["embed"] == pytest.approx(planted.get(("embed", end), 0), abs=0.02)


@pytest.mark.parametrize("name", ["gemma2", "neox-parallel", "granite", "mixtral"])
def test_single_heads_sum_to_the_clean_stream_in_other_families(name: str) -> None:
    """What all parts send adds up to the difference of the streams (sub-layer norms mix the heads of a block)."""
    from pellucid.engine.paths import Runs, receiver_of, senders_to

    subject = pellucid.load(plain.tiny(name))
    runs = Runs(subject, subject.encode(plain.IDS), subject.encode(CORRUPT))
    end = receiver_of(subject, "logits")
    senders = [s for s in senders_to(subject, end) if name != "gemma2" or s.head < 0]
    total = torch.stack([runs.change(sender) for sender in senders]).sum(0)
    if name == "gemma2":
        total += sum(runs.good[f"blocks.{i}.resid_mid"] - runs.corrupt[f"blocks.{i}.resid_mid"] for i in range(3))
        total -= sum(runs.good[f"blocks.{i}.resid_pre"] - runs.corrupt[f"blocks.{i}.resid_pre"] for i in range(3))
    expected = runs.good[runs.stream(end)] - runs.corrupt[runs.stream(end)]
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=0)
    found = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=1, receiver="blocks.1.attn.1", through="all")
    same = path_patching(subject, plain.IDS, corrupt=CORRUPT, target=1, receiver="blocks.1.attn.1")
    # The last part below the block has nothing in between, so its direct path is its only one.
    np.testing.assert_allclose(found.values[0, -1], same.values[0, -1], atol=1e-8)


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="line up"):
        path_patching(subject, plain.IDS, corrupt=CORRUPT[:-1], target=1)
    with pytest.raises(InputError, match="L from 0 to 1 and H from 0 to 3"):
        path_patching(subject, plain.IDS, corrupt=CORRUPT, target=1, receiver="blocks.1.attn.4")
    with pytest.raises(CapabilityError, match="pre-norm"):
        path_patching(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, corrupt=CORRUPT, target=1)


def multiplied(subject: pellucid.Subject) -> list[int]:
    """Return a list that grows by the rows x weights that go through the linear modules of the blocks."""
    found: list[int] = []
    for module in subject.model.modules():
        if type(module) is torch.nn.Linear and module is not subject.model.get_output_embeddings():
            module.register_forward_hook(
                lambda own, args, _: found.append(args[0].numel() // args[0].shape[-1] * own.weight.numel())
            )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("receiver", ["logits", "blocks.1.mlp", "blocks.5.mlp", "blocks.3.attn.1", "blocks.5.attn.0"])
def test_all_sources_into_one_receiver_cost_little_more_than_its_cone(receiver: str) -> None:
    """As many edits of the stream that the receiver reads are the cone; two captures of the runs come on top."""
    subject = pellucid.load("zoo:tiny-lm")
    good = subject.encode("When Mary and John went to the park, John gave a ball to")
    bad = subject.encode("When Mary and John went to the park, Mary gave a ball to")
    start = next(i for i, (a, b) in enumerate(zip(good.ids, bad.ids, strict=True)) if a != b)
    end = receiver_of(subject, receiver)
    part = "resid_mid" if end.head < 0 else "resid_pre"
    site = f"blocks.{end.layer}.{part}" if end.layer < 6 else "blocks.5.resid_post"
    value, where = capture(subject, bad, [site])[site][start:], {"position": list(range(start, len(bad)))}
    edits = [(), *((Edit(site, "set", value + i, where),) for i in range(len(senders_to(subject, end)) + 1))]
    readout = resolve(subject, good, " Mary", None)
    pair: dict[str, Any] = {"corrupt": list(bad.ids), "target": " Mary", "receiver": receiver}
    path_patching(subject, list(good.ids), **pair)  # and the proofs that run once per model
    counted = multiplied(subject)
    score_edits(subject, bad, readout, edits)
    cone = sum(counted)
    counted.clear()
    capture(subject, bad, [site])
    captured = 2 * sum(counted)
    counted.clear()
    path_patching(subject, list(good.ids), **pair)
    assert sum(counted) - captured <= 1.3 * cone
