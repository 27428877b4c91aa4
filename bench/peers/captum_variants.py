"""Captum 0.9.0's KernelShap and Lime, and ShapleyValueSampling of a class, on a careful user's batched functions.

Units are features of the token ids; Lime and KernelShap explain one number each: the summed log-probability of the
continuation, or the logit of a class. To agree to rounding, both sides are given the same variants and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import KernelShap, Lime, LLMAttribution, ShapleyValueSampling, TextTemplateInput

from bench.jobs import JOBS, as_array, no_gradients
from bench.models import REPLACEMENT, Case, Sizes, text
from bench.peers.variants import class_logits, log_probs
from bench.ways import Pair, Setting, Way

BATCHES = (4, 8, 16)
Variants = tuple[np.ndarray, np.ndarray]


def _score(setting: Setting, case: Case) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Return the ids [1, tokens] that are perturbed, and the score [rows] of perturbed ones."""
    model, split = no_gradients(setting.model), case.sizes.spans[-1][1]
    ids = torch.tensor([case.ids[:split]], device=setting.device)
    if case.continuation:
        return ids, lambda rows: log_probs(model, rows, case.continuation).sum(1)
    question = torch.tensor(case.ids[split:], device=setting.device)

    def of_class(rows: torch.Tensor) -> torch.Tensor:
        together = torch.cat([rows, question.expand(len(rows), -1)], dim=1)
        # Left out is what was replaced: that token is never drawn.
        return class_logits(model, together, together != REPLACEMENT)

    return ids, of_class


def _features(sizes: Sizes, device: str) -> torch.Tensor:
    return torch.tensor([[unit for unit, (start, end) in enumerate(sizes.spans) for _ in range(start, end)]]).to(device)


def _attribute(setting: Setting, made: Callable[[Any], Any], case: Case, batch: int, samples: int) -> np.ndarray:
    ids, scored = _score(setting, case)
    with torch.no_grad():
        found = made(scored).attribute(
            ids, baselines=REPLACEMENT, feature_mask=_features(case.sizes, setting.device), n_samples=samples,
            perturbations_per_eval=batch, return_input_shape=False,
        )  # fmt: skip
    return as_array(found[0])


def _surrogate(setting: Setting, job: str, made: Callable[[Any], Any], given: Callable[[int], Variants]) -> list[Way]:
    """Return the ways of Lime or KernelShap; `given` are the variants and weights that ours takes on few units."""

    def run(case: Case, batch: int) -> np.ndarray:
        return _attribute(setting, made, case, batch, case.sizes.samples)

    def fixed(case: Case) -> tuple[Callable[[Any], Any], int]:
        masks, weights = given(case.sizes.units)
        return (lambda scored: _given(made(scored), masks, weights, setting.device)), len(masks)

    def both(subject: Any, case: Case) -> Pair:
        method, count = fixed(case)
        theirs = _attribute(setting, method, case, 1, count)
        return JOBS[job].ours(subject, case).reshape(len(theirs), -1).sum(1), theirs

    ways = [Way(made.__name__, run, batches=BATCHES, both=both)]
    if not setting.sizes.continuation:
        return ways

    def both_documented(subject: Any, case: Case) -> Pair:
        method, count = fixed(case)
        return JOBS[job].ours(subject, case).sum(1), _language_model(setting, method, case, count)

    samples = setting.sizes.samples
    some = max(setting.sizes.units + 2, samples // 8)
    documented = Way(
        f"LLMAttribution({made.__name__})",
        lambda case, batch: _language_model(setting, made, case, case.sizes.samples),
        lambda case, batch: _language_model(setting, made, case, some),
        samples / some, f"{some} of {samples} variants", both=both_documented,
    )  # fmt: skip
    return [*ways, documented]


def _language_model(setting: Setting, made: Callable[[Any], Any], case: Case, samples: int) -> np.ndarray:
    """Do what Captum documents for language models: one row at a time, with all logits."""
    values = [text(case.ids[start:end]) for start, end in case.sizes.spans]
    baselines = [text((REPLACEMENT,) * (end - start)) for start, end in case.sizes.spans]
    given = TextTemplateInput(" ".join("{}" for _ in values), values, baselines)
    with torch.no_grad():
        found = LLMAttribution(made(no_gradients(setting.model)), setting.tokenizer).attribute(
            given, target=torch.tensor(case.continuation, device=setting.device), n_samples=samples,
            forward_in_tokens=False,
        )  # fmt: skip
    return as_array(found.seq_attr)


def _given(method: Any, masks: np.ndarray, weights: np.ndarray, device: str) -> Any:
    """Return the method with these variants and weights in place of its own, and a fit without penalty."""
    left, weight = iter(zip(masks, weights, strict=True)), {}

    def perturb(*_: Any, **__: Any) -> torch.Tensor:
        mask, weight["now"] = next(left)
        return torch.tensor(mask[None].astype(int), device=device)

    method.interpretable_model, method.perturb_func = SkLearnLinearRegression(), perturb
    method.similarity_func = lambda *_, **__: torch.tensor([weight["now"]])
    return method


def _all_by_kernel(units: int) -> Variants:
    """Return all subsets and their Shapley weights, the ends held by a large one."""
    from pellucid.engine.coalitions import all_coalitions
    from pellucid.engine.designs import log_count

    masks = all_coalitions(units)
    size = masks.sum(1)
    inner = (units - 1) / (np.exp(log_count(units)[size]) * np.maximum(size * (units - size), 1))
    return masks, np.where((size == 0) | (size == units), 1e6, inner)


def _all_by_distance(units: int) -> Variants:
    """Return all subsets, sizes equally likely, with LIME's weights."""
    from pellucid.engine.coalitions import all_coalitions
    from pellucid.engine.designs import log_count

    masks = all_coalitions(units)
    distance = 100 * (1 - np.sqrt(masks.mean(1)))
    return masks, np.exp(-log_count(units)[masks.sum(1)] - distance**2 / (2 * 25.0**2))


def kernel_shap(setting: Setting, job: str = "kernel-shap") -> list[Way]:
    """KernelShap of the summed log-probability."""
    return _surrogate(setting, job, KernelShap, _all_by_kernel)


def encoder_kernel_shap(setting: Setting) -> list[Way]:
    """KernelShap of a class."""
    return kernel_shap(setting, "encoder-kernel-shap")


def lime(setting: Setting, job: str = "lime") -> list[Way]:
    """Lime of the summed log-probability, with its default kernel and lasso."""
    return _surrogate(setting, job, Lime, _all_by_distance)


def encoder_lime(setting: Setting) -> list[Way]:
    """Lime of a class."""
    return lime(setting, "encoder-lime")


def encoder_shapley(setting: Setting) -> list[Way]:
    """ShapleyValueSampling of a class, in the orders that ours takes."""
    from pellucid.engine.coalitions import permutations

    def run(case: Case, batch: int) -> np.ndarray:
        def made(scored: Any) -> Any:
            method, drawn = ShapleyValueSampling(scored), permutations(case.sizes.units, np.random.default_rng(0))
            method.permutation_generator = lambda features, samples: [next(drawn).tolist() for _ in range(samples)]
            return _Whole(method)

        return _attribute(setting, made, case, batch, case.sizes.permutations)

    return [Way("ShapleyValueSampling", run, batches=BATCHES)]


class _Whole:
    """Give ShapleyValueSampling's answer per unit, as the surrogates give theirs."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def attribute(self, ids: torch.Tensor, feature_mask: torch.Tensor, return_input_shape: bool, **rest: Any) -> Any:
        found = self.method.attribute(ids, feature_mask=feature_mask, **rest)
        starts = (feature_mask[0].diff(prepend=torch.tensor([-1])) > 0).nonzero()[:, 0]
        return found[:, starts]
