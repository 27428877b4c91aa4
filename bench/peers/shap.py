"""SHAP 0.51.0: the model function is a careful user's: batched, gradients off, only the logits that are read.

Units are its columns: 1 present, 0 absent. It is told to keep all weights (its default would drop most), and its
orders come in pairs, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import shap as package
import torch

from bench.jobs import as_array, no_gradients
from bench.models import REPLACEMENT, Case
from bench.peers.variants import class_logits, log_probs, present
from bench.ways import Setting, Way

BATCHES = (4, 8, 16)
Model = Callable[[np.ndarray], np.ndarray]


def _log_probs(setting: Setting, case: Case, batch: int) -> Model:
    """Return masks [rows, units] -> log-probabilities [rows, continuation], absent units replaced."""
    model, ids = no_gradients(setting.model), torch.tensor(case.ids, device=setting.device)

    def scored(masks: np.ndarray) -> np.ndarray:
        kept = present(masks, case.sizes).to(setting.device)
        rows = torch.where(kept, ids, REPLACEMENT)
        return np.concatenate([as_array(log_probs(model, part, case.continuation)) for part in rows.split(batch)])

    return scored


def _class_logits(setting: Setting, case: Case, batch: int) -> Model:
    """Return masks [rows, units] -> logit [rows] of class 1, absent units left out and rows padded."""
    model, ids = no_gradients(setting.model), torch.tensor(case.ids, device=setting.device)

    def scored(masks: np.ndarray) -> np.ndarray:
        kept = present(masks, case.sizes).to(setting.device)
        return np.concatenate([as_array(class_logits(model, ids, part)) for part in kept.split(batch)])

    return scored


def _kernel(made: Callable[[Setting, Case, int], Model], setting: Setting) -> list[Way]:
    def run(case: Case, batch: int) -> np.ndarray:
        units = case.sizes.units
        explainer = package.KernelExplainer(made(setting, case, batch), np.zeros((1, units)))
        found = explainer.shap_values(np.ones((1, units)), nsamples=case.sizes.samples, l1_reg=0, silent=True)
        return np.asarray(found)[0]

    return [Way("KernelExplainer", run, batches=BATCHES)]


def _permutation(made: Callable[[Setting, Case, int], Model], setting: Setting) -> list[Way]:
    def pairs(case: Case, batch: int, count: int) -> np.ndarray:
        units = case.sizes.units
        masker = package.maskers.Independent(np.zeros((1, units)))
        explainer = package.PermutationExplainer(made(setting, case, batch), masker, seed=0)
        found = explainer(np.ones((1, units)), max_evals=count * (2 * units + 1), silent=True)
        return np.asarray(found.values)[0]

    def both(subject: Any, case: Case) -> tuple[np.ndarray, np.ndarray]:
        from bench.jobs import JOBS

        # Both take every order of so few units here, so that the sampling errors are gone.
        job = JOBS["shapley" if case.continuation else "encoder-shapley"]
        ours = job.ours(subject, replace(case, sizes=replace(case.sizes, permutations=10**4)))
        theirs = pairs(case, BATCHES[0], 2) if case.sizes.units == 2 else pairs(case, BATCHES[0], 1)
        return ours.reshape(theirs.shape), theirs

    orders, units = setting.sizes.permutations, setting.sizes.units
    return [
        Way(
            "PermutationExplainer", lambda case, batch: pairs(case, batch, (case.sizes.permutations + 1) // 2),
            lambda case, batch: pairs(case, batch, 1), (orders * units + 1) / (2 * units + 1),
            f"{2 * units + 1} of {orders * units + 1} evaluations", batches=BATCHES, both=both, check={"units": 2},
        )
    ]  # fmt: skip


def kernel_shap(setting: Setting) -> list[Way]:
    """KernelExplainer on the log-probabilities of the continuation."""
    return _kernel(_log_probs, setting)


def encoder_kernel_shap(setting: Setting) -> list[Way]:
    """KernelExplainer on a class."""
    return _kernel(_class_logits, setting)


def shapley(setting: Setting) -> list[Way]:
    """PermutationExplainer on the log-probabilities of the continuation."""
    return _permutation(_log_probs, setting)


def encoder_shapley(setting: Setting) -> list[Way]:
    """PermutationExplainer on a class."""
    return _permutation(_class_logits, setting)
