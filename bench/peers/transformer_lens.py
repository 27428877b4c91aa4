"""TransformerLens 4.3.0: the helpers of `transformer_lens.patching` on a TransformerBridge over the same weights."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from bench.jobs import as_array, no_gradients
from bench.models import Case
from bench.ways import Setting, Way, whole

NAMES = {"gpt2": "openai-community/gpt2", "llama": "meta-llama/Llama-2-7b-hf"}  # only say which adapter is meant
AXES = ["layer", "place"]
logging.getLogger("transformer_lens").setLevel(logging.ERROR)


def residual_patching(setting: Setting) -> list[Way]:
    """`get_act_patch_resid_pre`: one run for every layer and position."""
    helper = patching.get_act_patch_resid_pre
    return [_way(setting, "patching.get_act_patch_resid_pre", helper, setting.sizes.tokens, one_of=16)]


def head_patching(setting: Setting) -> list[Way]:
    """`get_act_patch_attn_head_out_all_pos`: one run for every head."""
    helper = patching.get_act_patch_attn_head_out_all_pos
    return [_way(setting, "patching.get_act_patch_attn_head_out_all_pos", helper, setting.shape.heads, one_of=4)]


def _way(setting: Setting, name: str, helper: Any, places: int, one_of: int) -> Way:
    bridge = TransformerBridge.boot_transformers(
        NAMES[setting.shape.kind], hf_model=no_gradients(setting.model), tokenizer=setting.tokenizer,
        device=setting.device,
    ).eval()  # fmt: skip
    activation, setter = helper.keywords["activation_name"], helper.keywords["patch_setter"]
    count = setting.shape.layers * places
    some = np.arange(0, count, one_of)

    def sweep(case: Case, cells: np.ndarray, across: int) -> np.ndarray:
        clean, corrupt = (torch.tensor([ids], device=setting.device) for ids in (case.ids, case.other))

        def metric(logits: torch.Tensor) -> torch.Tensor:
            return logits[0, -1, case.target] - logits[0, -1, case.contrast]

        with torch.no_grad():
            _, cache = bridge.run_with_cache(clean, names_filter=lambda name: name.endswith(f"hook_{activation}"))
            table = pd.DataFrame(np.stack(np.divmod(cells, across), 1), columns=AXES)
            found = patching.generic_activation_patch(
                bridge, corrupt, cache, metric, setter, activation, index_df=table, baseline=True
            )
        return as_array(found.values - found.baseline)

    def run(case: Case, batch: int) -> np.ndarray:
        across = len(case.ids) if activation == "resid_pre" else places
        cells = np.arange(setting.shape.layers * across)
        return sweep(case, cells, across).reshape(setting.shape.layers, across)

    return Way(
        name, run, lambda case, batch: sweep(case, some, places), (count + 2) / (len(some) + 2),
        f"{len(some)} of {count} patches", timed_agree=lambda ours, theirs: whole(ours.reshape(-1)[some], theirs),
    )  # fmt: skip
