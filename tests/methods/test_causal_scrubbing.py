"""Causal scrubbing: planted circuits are recovered whole, wrong ones are not, and draws by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.methods.patching.causal_scrubbing import causal_scrubbing
from pellucid.zoo import truth
from tests import plain
from tests.methods.test_path_patching import CORRUPT, Written

PLANTED = {
    "logits": ["blocks.1.mlp"],
    "blocks.1.mlp": ["blocks.1.attn.0", "embed"],
    "blocks.1.attn.0": ["blocks.0.mlp", "embed"],
    "blocks.0.mlp": ["embed"],
}


def recovered(found: Any) -> float:
    """Return the share that is recovered."""
    return float(found.evidence[0].values["recovered"])


@pytest.mark.slow
def test_the_planted_circuit_is_recovered_and_a_wrong_one_is_not() -> None:
    known, subject = truth.answer("two-step")["prompts"][::7], pellucid.load("zoo:truth/two-step")
    prompts, targets = [p["ids"] for p in known], [p["target"] for p in known]

    def scrub(hypothesis: dict[str, list[str]], **more: Any) -> float:
        return recovered(causal_scrubbing(subject, prompts, hypothesis, targets=targets, samples=2, **more))

    assert scrub(PLANTED) == pytest.approx(1, abs=1e-3)
    inputs = {k: v for k, v in PLANTED.items() if "attn" not in k}
    assert scrub(inputs | {f"blocks.1.attn.0.{i}": ["blocks.0.mlp", "embed"] for i in "kv"}) == pytest.approx(
        1, abs=1e-3
    )
    assert scrub({"logits": ["blocks.0.mlp", "blocks.1.attn.1"]}) < 0.3
    assert scrub(PLANTED | {"blocks.1.mlp": ["blocks.1.attn.0"]}) < 0.8  # it must also know what is asked
    person = [next(i for i in ids[1:] if i in (5, 6, 7)) for ids in prompts]
    place = [ids.index(who) for ids, who in zip(prompts, person, strict=True)]
    same = {"blocks.1.attn.0": list(zip(person, place, strict=True))}
    assert scrub(PLANTED, features=same) == pytest.approx(1, abs=1e-3)  # what is asked does not reach this head
    assert scrub(PLANTED, features={"blocks.1.attn.0": [0] * len(prompts)}) < 0.8


def test_every_draw_is_one_that_the_paper_allows() -> None:
    """One head as it is, all else from one of two prompts: two possible outcomes per prompt, written by hand."""
    model = plain.tiny()
    written, subject = Written(model), pellucid.load(model)
    prompts = [plain.IDS, CORRUPT]
    runs = [written.run(ids, {})[1] for ids in prompts]
    seen = set()
    for seed in range(4):
        found = causal_scrubbing(
            subject, prompts, {"logits": ["blocks.1.attn.2"]}, samples=1, seed=seed,
            targets=[pellucid.Target(plain.TARGET, measure="logit")] * 2,
        )  # fmt: skip
        for i, line in enumerate(found.rows):
            outcomes = [
                written.run(prompts[r], {"logits": runs[i][1, 2] - runs[r][1, 2]})[0] for r in range(2)
            ]  # fmt: skip
            assert line[2] == pytest.approx(outcomes[i], abs=1e-10)
            drawn = int(np.argmin(np.abs(np.array(outcomes) - line[3])))
            assert line[3] == pytest.approx(outcomes[drawn], abs=1e-10)
            seen.add((i, drawn))
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["llama", "neox-parallel"])
def test_a_hypothesis_that_keeps_everything_recovers_everything(name: str) -> None:
    from pellucid.engine.paths import receiver_of, senders_to

    subject = pellucid.load(plain.tiny(name))

    def names(part: str) -> list[str]:
        found = senders_to(subject, receiver_of(subject, part))
        return ["embed", *(f"blocks.{s.layer}." + ("mlp" if s.head < 0 else f"attn.{s.head}") for s in found[1:])]

    hypothesis = {part: names(part) for part in ("logits", "blocks.1.mlp", "blocks.1.attn.3.q", "blocks.1.attn.3.v")}
    hypothesis["blocks.1.attn.3.k"] = names("blocks.1.attn.3.k")
    found = causal_scrubbing(subject, [plain.IDS, CORRUPT], hypothesis, targets=[plain.TARGET] * 2, samples=1)
    for line in found.rows:
        assert line[3] == pytest.approx(line[2], abs=1e-7)


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="one length"):
        causal_scrubbing(subject, [plain.IDS, CORRUPT[:-1]], {"logits": []})
    with pytest.raises(InputError, match="does not write before"):
        causal_scrubbing(subject, [plain.IDS, CORRUPT], {"blocks.0.attn.1": ["blocks.0.mlp"]})
    with pytest.raises(CapabilityError, match="norms behind"):
        causal_scrubbing(pellucid.load(plain.tiny("gemma2")), [plain.IDS, CORRUPT], {"logits": []})
