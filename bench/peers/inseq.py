"""Inseq 0.7.1: gradients of weights off, one target token of the model's own distribution after the other.

It explains probabilities, moves the generated tokens too, takes the unknown token as baseline, reduces by the L2 norm
and normalises to a sum of one; its first step is compared in just these conventions.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import inseq
import numpy as np
from inseq.attr.feat.ops.value_zeroing import ValueZeroing

import pellucid
from bench.jobs import as_array, no_gradients
from bench.models import Case, text
from bench.ways import Pair, Setting, Way

logging.disable(logging.WARNING)
_hook = ValueZeroing.get_states_extract_and_patch_hook


def _mended(self: Any, *args: Any, **options: Any) -> Any:
    hook = _hook(self, *args, **options)
    return lambda module, given, output: hook(module, given, (output,))[0]


# Blocks of this transformers return bare tensors where the hook of value zeroing expects tuples.
ValueZeroing.get_states_extract_and_patch_hook = _mended


def _attribute(setting: Setting, method: str, case: Case, targets: slice, **options: Any) -> Any:
    """Return Inseq's answer for some of the target tokens."""
    model = inseq.load_model(no_gradients(setting.model), method, tokenizer=setting.tokenizer, device=setting.device)
    first, last, _ = targets.indices(len(case.continuation))
    start = len(case.ids)
    answer = model.attribute(
        input_texts=text(case.ids), generated_texts=text(case.ids + case.continuation[:last]), show_progress=False,
        pretty_progress=False, attr_pos_start=start + first, attr_pos_end=start + last, **options,
    )  # fmt: skip
    return answer.sequence_attributions[0]


def _first_step(setting: Setting, subject: Any, method: str, case: Case, ours: str, **options: Any) -> Pair:
    """Return both answers for the first target token in Inseq's conventions."""
    theirs = _attribute(setting, method, case, slice(0, 1), **options).aggregate().target_attributions
    target = pellucid.Target(case.continuation[0], measure="prob")
    same: dict[str, Any] = {"reduce": "l2", "normalise": "sum"}
    if options:
        same |= {"steps": case.sizes.steps, "baseline": setting.tokenizer.unk_token_id}
    found = pellucid.run(ours, subject, list(case.ids), target=target, **same)
    return np.asarray(found.scores), as_array(theirs)[: len(case.ids), 0]


def ig_span(setting: Setting) -> list[Way]:
    """Integrated gradients for each target token on its own prefix."""

    def run(case: Case, batch: int, targets: slice | None = None) -> np.ndarray:
        options = {"n_steps": case.sizes.steps, "internal_batch_size": batch}
        found = _attribute(setting, "integrated_gradients", case, targets or slice(None), **options)
        return as_array(found.target_attributions.sum(-1))[: len(case.ids)]

    count, tokens = setting.sizes.continuation, setting.sizes.tokens
    some = slice(count // 2, count // 2 + max(1, count // 16))
    done = sum(tokens + target for target in range(count)[some])
    return [
        Way(
            "integrated_gradients", run, lambda case, batch: run(case, batch, some),
            sum(tokens + target for target in range(count)) / done, f"{len(range(count)[some])} of {count} targets",
            batches=(5, 10, 20),
            both=lambda subject, case: _first_step(
                setting, subject, "integrated_gradients", case, "integrated_gradients", n_steps=case.sizes.steps
            ),
        )
    ]  # fmt: skip


def gradient_matrix(setting: Setting) -> list[Way]:
    """Input x gradient for each target token on its own prefix."""

    def run(case: Case, batch: int) -> np.ndarray:
        found = _attribute(setting, "input_x_gradient", case, slice(None))
        return as_array(found.target_attributions.sum(-1))[: len(case.ids)]

    def columns(ours: np.ndarray, theirs: np.ndarray) -> Pair:
        # Theirs explain the probability p, ours log p: each column of theirs is p times ours.
        return tuple(each / np.abs(each).max(0) for each in (ours, theirs))  # type: ignore[return-value]

    return [
        Way(
            "input_x_gradient", run, timed_agree=columns,
            both=lambda subject, case: _first_step(setting, subject, "input_x_gradient", case, "gradient_x_input"),
        )
    ]  # fmt: skip


def value_zeroing(setting: Setting) -> list[Way]:
    """One forward pass per token, with the value of that token at zero in every block and all outputs set back.

    It finds the values by the name of a variable, which transformers' GPT-2 no longer has. Behind the last block it
    compares beyond the final norm, so answers are compared on the blocks before it; it drops scores below 1e-5, so they
    are compared on values 30 times as large. It does all of it again for every further target.
    """

    def attribute(model: Any, case: Case, first: int, targets: int = 1) -> np.ndarray:
        wrapped = inseq.load_model(model, "value_zeroing", tokenizer=setting.tokenizer, device=setting.device)
        answer = wrapped.attribute(
            input_texts=text(case.ids[:first]), generated_texts=text((*case.ids, *case.continuation[:targets])),
            show_progress=False, pretty_progress=False,
        )  # fmt: skip
        return np.nan_to_num(as_array(answer.sequence_attributions[0].target_attributions))

    def both(subject: Any, case: Case) -> Pair:
        model = copy.deepcopy(no_gradients(setting.model))
        for block in model.model.layers:
            block.self_attn.v_proj.weight.mul_(30)
        matrices = attribute(model, case, 1)[: len(case.ids)]  # [key, query, layer]
        model.model.layers = model.model.layers[:-1]
        model.config.num_hidden_layers -= 1
        ours = pellucid.run("value_zeroing", pellucid.load(model), list(case.ids), target=case.target)
        rolled = np.eye(len(case.ids))
        for layer in range(matrices.shape[-1] - 1):
            rolled = matrices[:, :, layer].T @ rolled
        return np.asarray(ours.scores), rolled[-1]

    def run(case: Case, batch: int, targets: int | None = None) -> np.ndarray:
        wanted = targets or len(case.continuation)
        return attribute(no_gradients(setting.model), case, len(case.ids), wanted)

    tokens, count = setting.sizes.tokens, setting.sizes.continuation
    if count == 1:
        return [Way("value_zeroing", run, both=both)]
    scale = sum((tokens + target) ** 2 for target in range(count)) / tokens**2
    part = lambda case, batch: run(case, batch, 1)  # noqa: E731
    return [Way("value_zeroing", run, part, scale, f"the first of {count} targets", both=both)]


value_zeroing_matrix = value_zeroing


def occlusion_matrix(setting: Setting) -> list[Way]:
    """One forward pass per token of the prefix, for each target token on its own prefix."""

    def run(case: Case, batch: int, targets: slice | None = None) -> np.ndarray:
        found = _attribute(setting, "occlusion", case, targets or slice(None))
        return as_array(found.target_attributions)[: len(case.ids)]

    def both(subject: Any, case: Case) -> Pair:
        theirs = run(case, 0, slice(0, 1))[:, 0]
        asked = {
            "target": pellucid.Target(case.continuation[0], measure="prob"),
            "replacement": setting.tokenizer.unk_token_id,
        }
        return np.abs(pellucid.run("occlusion", subject, list(case.ids), **asked).scores), theirs

    count, tokens = setting.sizes.continuation, setting.sizes.tokens
    middle = count // 2
    lengths = tokens + np.arange(count)
    return [
        Way(
            "occlusion", run, lambda case, batch: run(case, batch, slice(middle, middle + 1)),
            float((lengths**2).sum() / lengths[middle] ** 2), f"1 of {count} targets", both=both,
        )
    ]  # fmt: skip
