"""Ten methods by nine metrics on 50 prompts of zoo:tiny-lm; explained is its own answer of up to ten tokens."""

from __future__ import annotations

import random

import pellucid
from pellucid.zoo import tasks
from scripts.evaluate_common import METRICS, out_folder, run, settings_for

EXAMPLES, SEED, LENGTH = 50, 0, 10
METHODS = (
    "occlusion", "lime", "kernel_shap", "gradient_norm", "gradient_x_input", "integrated_gradients", "smoothgrad",
    "attention_rollout", "lrp", "attn_lrp",
)  # fmt: skip


def prompts(count: int, seed: int) -> list[str]:
    """Return prompts of the tasks that the model was trained on, none of which training ever saw."""
    items = tasks.evaluation_items(seed, count)
    return [item.prompt for item in random.Random(seed).sample(items, count)]


def main() -> None:
    """Run or go on."""
    metrics = tuple(metric for metric in METRICS if metric != "decision_flip_top")  # a longer answer has no decision
    run("generation", pellucid.load("zoo:tiny-lm"), prompts(EXAMPLES, SEED), out_folder(), methods=METHODS,
        metrics=metrics, generate=LENGTH, orders=3, settings=settings_for(*METHODS, *metrics))  # fmt: skip


if __name__ == "__main__":
    main()
