"""Self-repair against GPT-2 ablated by hand, with what each later part and the final norm then bring back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, TargetError
from pellucid.core.targets import Target
from pellucid.methods.reading.self_repair import self_repair
from tests import plain

OTHER = [11, 42, 8, 23, 64, 9]


def run(model: torch.nn.Module, ids: list[int], ablated: tuple[int, str] | None, put: torch.Tensor) -> dict:
    """Run GPT-2 with one sub-layer's last output replaced; give every part's vector, its logit direction, the value."""
    seen: dict = {}
    handles = []
    for layer, block in enumerate(model.transformer.h):
        for name, module in (("attn", block.attn.c_proj), ("mlp", block.mlp.c_proj)):

            def keep(_: object, inputs: object, out: torch.Tensor, at: tuple[int, str] = (layer, name)) -> torch.Tensor:
                out = out.clone()
                if at == ablated:
                    out[0, -1] = put
                seen[at] = out[0, -1]
                return out

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    for handle in handles:
        handle.remove()
    start = output.hidden_states[0][0, -1]
    last = start + sum(seen.values())
    spread = (last.var(unbiased=False) + model.transformer.ln_f.eps).sqrt()
    row = model.lm_head.weight[plain.TARGET].detach() * model.transformer.ln_f.weight.detach()
    return {"parts": seen, "start": start, "u": (row - row.mean()) / spread, "f": output.logits[0, -1, plain.TARGET]}


@pytest.mark.parametrize("ablate", ["attn", "mlp"])
def test_equals_ablation_by_hand(ablate: str) -> None:
    model = plain.tiny("gpt2")
    other = run(model, OTHER, None, torch.zeros(32))
    clean = run(model, plain.IDS, None, torch.zeros(32))
    found = {
        "zero": self_repair(pellucid.load(model), plain.IDS, target=plain.TARGET, ablate=ablate),
        "source": self_repair(pellucid.load(model), plain.IDS, target=plain.TARGET, ablate=ablate, source=OTHER),
    }
    for name, result in found.items():
        for layer in (0, 1):
            put = torch.zeros(32).double() if name == "zero" else other["parts"][layer, ablate]
            dead = run(model, plain.IDS, (layer, ablate), put)
            change = {at: float((dead["parts"][at] - clean["parts"][at]) @ clean["u"]) for at in clean["parts"]}
            direct = -change.pop((layer, ablate))
            repair = [sum(v for (_, kind), v in change.items() if kind == k) for k in ("attn", "mlp")]
            written = dead["start"] + sum(dead["parts"].values())
            norm = float(written @ (dead["u"] - clean["u"]))
            total = float(clean["f"] - dead["f"])
            np.testing.assert_allclose(result.scores[layer], [direct, total, *repair, norm], atol=1e-10)


@pytest.mark.parametrize("name", ["neox-parallel", "gemma2", "granite", "bert-classifier", "bart"])
def test_the_last_part_has_nobody_to_repair_it(name: str) -> None:
    found = self_repair(pellucid.load(plain.tiny(name)), plain.IDS, target=1, ablate="mlp")
    np.testing.assert_allclose(found.scores[-1, 2:4], 0, atol=1e-12)
    assert abs(found.scores[-1, 0]) > 1e-6
    np.testing.assert_allclose(found.scores[:, 1], found.scores[:, 0] - found.scores[:, 2:].sum(1), atol=1e-12)


def test_a_part_that_writes_nothing_has_no_effect() -> None:
    silent = pellucid.load(plain.tiny("llama")).with_(pellucid.Edit("blocks.1.mlp.out", "zero"))
    found = self_repair(silent, plain.IDS, target=1, ablate="mlp").scores
    np.testing.assert_allclose(found[1], 0, atol=1e-12)
    assert abs(found[0, 1]) > 1e-3


def test_mean_and_refusals() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    mean = self_repair(subject, plain.IDS, target=1, ablation="mean")
    assert np.abs(mean.scores - self_repair(subject, plain.IDS, target=1).scores).max() > 1e-4
    with pytest.raises(InputError, match="equal length"):
        self_repair(subject, plain.IDS, target=1, source=OTHER[:4])
    with pytest.raises(InputError, match="one position"):
        self_repair(pellucid.load(plain.tiny("t5")), plain.IDS, target=1, ablation="mean")
    with pytest.raises(TargetError, match="shares out logits"):
        self_repair(subject, plain.IDS, target=Target(1, measure="log_prob"))
