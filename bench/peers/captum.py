"""Captum 0.9.0: gradients of weights off, last-row logits where the forward function is the user's, batch searched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from captum.attr import (
    FeatureAblation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    ShapleyValueSampling,
    TextTemplateInput,
    TextTokenInput,
)

from bench.jobs import SEED_OF_ORDERS, as_array, no_gradients
from bench.models import REPLACEMENT, Case, text
from bench.peers.captum_variants import (  # noqa: F401 - the ways of these jobs
    encoder_kernel_shap,
    encoder_lime,
    encoder_shapley,
    kernel_shap,
    lime,
)
from bench.ways import Setting, Way, whole

PART_OF_TOKENS = 16  # a slow way replaces one of so many tokens
MODES = {
    "one forward": {"forward_in_tokens": False},
    "token by token": {"forward_in_tokens": True, "use_cached_outputs": False},
}


def last_logit(setting: Setting, case: Case) -> Any:
    """Return the forward function of a careful user: the target's logit at the last position, nothing else."""
    model = no_gradients(setting.model)
    return lambda ids: model(input_ids=ids, logits_to_keep=1).logits[:, -1, case.target]


def ids_of(setting: Setting, case: Case) -> torch.Tensor:
    """Return the prompt as a batch of one."""
    return torch.tensor([case.ids], device=setting.device)


def ig(setting: Setting) -> list[Way]:
    """LayerIntegratedGradients at the token embedding."""

    def run(case: Case, batch: int) -> np.ndarray:
        layer = setting.model.get_input_embeddings()
        method = LayerIntegratedGradients(last_logit(setting, case), layer)
        ids = ids_of(setting, case)
        found = method.attribute(
            ids, baselines=torch.full_like(ids, REPLACEMENT), n_steps=case.sizes.steps, internal_batch_size=batch
        )
        return as_array(found.sum(-1)[0])

    def half(case: Case, batch: int) -> np.ndarray:
        return run(replace(case, sizes=replace(case.sizes, steps=max(1, case.sizes.steps // 2))), batch)

    return [Way("LayerIntegratedGradients", run, batches=(5, 10, 25), search=half, timed_agree=whole)]


def ig_span(setting: Setting) -> list[Way]:
    """LLMGradientAttribution: integrated gradients for each target token on its own prefix, then the sum."""

    def run(case: Case, batch: int, targets: int | None = None) -> np.ndarray:
        model = no_gradients(setting.model)
        inner = LayerIntegratedGradients(model, model.get_input_embeddings())
        found = LLMGradientAttribution(inner, setting.tokenizer).attribute(
            TextTokenInput(text(case.ids), setting.tokenizer, baselines=REPLACEMENT),
            target=torch.tensor(case.continuation[:targets]),
            n_steps=case.sizes.steps,
            internal_batch_size=batch,
        )
        return as_array(found.seq_attr)

    count = setting.sizes.continuation
    some = max(1, count // 16)
    scale = rows_of(setting, count) / rows_of(setting, some)
    return [
        Way(
            "LLMGradientAttribution", run, lambda case, batch: run(case, batch, some), scale,
            f"{some} of {count} target tokens", batches=(5, 10, 20),
        )
    ]  # fmt: skip


def rows_of(setting: Setting, targets: int) -> int:
    """Return the positions that are run for the first target tokens, each on its own prefix."""
    return sum(setting.sizes.tokens + target for target in range(targets))


def occlusion(setting: Setting) -> list[Way]:
    """FeatureAblation of one logit."""

    def run(case: Case, batch: int, together: int = 1) -> np.ndarray:
        method, ids = FeatureAblation(last_logit(setting, case)), ids_of(setting, case)
        groups = torch.arange(ids.shape[1], device=setting.device)[None] // together
        with torch.no_grad():
            found = method.attribute(ids, baselines=REPLACEMENT, feature_mask=groups, perturbations_per_eval=batch)
        return as_array(found[0])

    return [
        Way(
            "FeatureAblation", run, batches=(4, 8, 16), search=lambda case, batch: run(case, batch, 4),
            timed_agree=whole,
        )
    ]  # fmt: skip


def occlusion_matrix(setting: Setting) -> list[Way]:
    """LLMAttribution over FeatureAblation, in its two right modes."""
    return [_ablation(setting, mode) for mode in MODES]


def _ablation(setting: Setting, mode: str) -> Way:
    def attribute(case: Case, given: Any) -> np.ndarray:
        model = no_gradients(setting.model)
        with torch.no_grad():
            found = LLMAttribution(FeatureAblation(model), setting.tokenizer).attribute(
                given, target=torch.tensor(case.continuation, device=setting.device), **MODES[mode]
            )
        return as_array(found.token_attr).T

    def run(case: Case, batch: int) -> np.ndarray:
        return attribute(case, TextTokenInput(text(case.ids), setting.tokenizer, baselines=REPLACEMENT))

    count = setting.sizes.tokens
    some = np.arange(count // PART_OF_TOKENS // 2, count, PART_OF_TOKENS)

    def part(case: Case, batch: int) -> np.ndarray:
        words = [f"w{i}" for i in case.ids]
        template = " ".join("{}" if place in some else word for place, word in enumerate(words))
        return attribute(case, TextTemplateInput(template, [words[i] for i in some], [f"w{REPLACEMENT}"] * len(some)))

    return Way(
        f"LLMAttribution, {mode}", run, part, (count + 1) / (len(some) + 1), f"{len(some)} of {count} tokens",
        timed_agree=lambda ours, theirs: (ours[some], theirs), most_runs=1 if mode == "token by token" else 99,
    )  # fmt: skip


def shapley(setting: Setting) -> list[Way]:
    """LLMAttribution over ShapleyValueSampling, in its two right modes."""
    return [_shapley(setting, mode) for mode in MODES]


def _shapley(setting: Setting, mode: str) -> Way:
    from pellucid.engine.coalitions import permutations

    def attribute(case: Case, orders: int, groups: int) -> np.ndarray:
        """Take the orders that ours takes; `groups` units are perturbed together as one."""
        model = no_gradients(setting.model)
        method = ShapleyValueSampling(model)
        if groups == 1:
            drawn = permutations(len(case.sizes.spans), np.random.default_rng(SEED_OF_ORDERS))
            method.permutation_generator = lambda features, samples: [next(drawn).tolist() for _ in range(samples)]
        values = [text(case.ids[start:end]) for start, end in case.sizes.spans]
        baselines = [text((REPLACEMENT,) * (end - start)) for start, end in case.sizes.spans]
        mask = None if groups == 1 else [place // groups for place in range(len(values))]
        given = TextTemplateInput(" ".join("{}" for _ in values), values, baselines, mask)
        with torch.no_grad():
            found = LLMAttribution(method, setting.tokenizer).attribute(
                given, target=torch.tensor(case.continuation, device=setting.device), n_samples=orders, **MODES[mode]
            )
        return as_array(found.token_attr).T

    units, orders = setting.sizes.units, setting.sizes.permutations
    slow = mode == "token by token"
    players = units // 2 if slow else units
    return Way(
        f"LLMAttribution, {mode}",
        lambda case, batch: attribute(case, case.sizes.permutations, 1),
        lambda case, batch: attribute(case, 1, 2 if slow else 1),
        (orders * units + 1) / (players + 1),
        f"{players + 1} of {orders * units + 1} evaluations",
        check={"permutations": 2},
        most_runs=1 if slow else 99,
    )
