"""Two jobs of steering beside the usual way: 144 head probes in one solve, and last-token activations of 1,000 pairs.

`python -m bench.steering --job probes` (or `activations`) times both ways in turn and prints the ratio with its spread;
`--small` runs small sizes, `--count` prints what is computed instead of timing it. The other ways are written here as
scikit-learn's and repeng's users run them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from bench.clock import wait_for_quiet

EQUAL = 1e-6  # scikit-learn's tolerance at which its losses are ours to 1e-4, in float64; at its default they are not

Way = Callable[[], np.ndarray]


def probes(small: bool) -> tuple[Way, Way, dict[str, float]]:
    """Return both ways to the losses [head] of logistic probes of all heads, and what they compute."""
    from sklearn.linear_model import LogisticRegression
    from transformers import GPT2Config, GPT2LMHeadModel

    import pellucid
    from pellucid.engine.batched_probes import logistic_probes
    from pellucid.engine.directions import activations as read

    layers, width, items = (2, 96, 120) if small else (12, 768, 1200)
    heads = width // (24 if small else 64)
    torch.manual_seed(0)
    subject = pellucid.load(GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=500)))
    rng = np.random.default_rng(0)
    prompts, labels = rng.integers(2, 500, (items, 8)), rng.integers(0, 2, items)
    prompts[:, 4] = np.where(rng.random(items) < 0.9, labels, 1 - labels)  # a word that tells it, mostly
    found = read(subject, prompts.tolist(), "attn.z", layers=range(layers)).values
    values = np.ascontiguousarray(
        found.reshape(layers, items, heads, -1).swapaxes(1, 2).reshape(layers * heads, items, -1)
    )
    heads, rows, width = values.shape
    steps: list[int] = []

    def ours() -> np.ndarray:
        found = logistic_probes(torch.as_tensor(values), torch.as_tensor(labels))
        steps.append(found.steps)
        return found.losses.numpy()

    def theirs() -> np.ndarray:
        losses = []
        for x in values.astype(np.float64):
            probe = LogisticRegression(max_iter=2000, tol=EQUAL).fit(x, labels)
            logits = x @ probe.coef_[0] + probe.intercept_[0]
            steps.append(int(probe.n_iter_[0]))
            losses.append((np.logaddexp(0, logits) - labels * logits).sum() + 0.5 * (probe.coef_**2).sum())
        return np.array(losses)

    ours()
    newton = steps[-1]
    theirs()
    counts = {
        "newton steps": float(newton),
        "newton multiplications": float(heads * newton * rows * width * (width + 3)),
        "lbfgs steps, all heads": float(sum(steps[1:])),
        "lbfgs multiplications": float(2.2 * sum(steps[1:]) * rows * width),
    }
    return ours, theirs, counts


def activations(small: bool) -> tuple[Way, Way, dict[str, float]]:
    """Return both ways to the last-token activations [layer, prompt, dimension], and what they compute."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import pellucid
    from pellucid.engine.directions import activations as read

    layers, width, vocabulary, pairs = (2, 32, 500, 20) if small else (12, 768, 50257, 1000)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=max(1, width // 64), vocab_size=vocabulary)
    model = GPT2LMHeadModel(config).eval()
    subject = pellucid.load(model)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, vocabulary, int(n)).tolist() for n in rng.integers(16, 64, 2 * pairs)]

    def ours() -> np.ndarray:
        return read(subject, prompts, "resid_post", layers=range(layers - 1)).values

    def theirs() -> np.ndarray:
        found: list[list[np.ndarray]] = [[] for _ in range(layers - 1)]
        for first in range(0, len(prompts), 32):
            batch = prompts[first : first + 32]
            longest = max(map(len, batch))
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for i, one in enumerate(batch):
                ids[i, : len(one)], mask[i, : len(one)] = torch.tensor(one), 1
            with torch.no_grad():
                output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            for i, one in enumerate(batch):
                for layer in range(layers - 1):
                    found[layer].append(output.hidden_states[layer + 1][i, len(one) - 1].cpu().float().numpy())
        return np.stack([np.stack(one) for one in found])

    lengths = [len(one) for one in prompts]
    padded = sum(32 * max(lengths[i : i + 32]) for i in range(0, len(lengths), 32))
    block, head = 12 * width**2, vocabulary * width
    counts = {
        "tokens": float(sum(lengths)),
        "their padded tokens": float(padded),
        "predicted ratio": padded * (layers * block + head) / (sum(lengths) * (layers - 1) * block),
        "their copies": float(len(prompts) * (layers - 1)),
    }
    return ours, theirs, counts


JOBS = {"probes": probes, "activations": activations}


def main() -> None:
    """Run one job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=list(JOBS), required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ours, theirs, counts = JOBS[given.job](given.small)
    ratios, gaps = list[float](), list[np.ndarray]()
    for _ in range(1 if given.count else given.rounds):
        seconds, answers = [], []
        for way in (ours, theirs):
            wait_for_quiet()  # threads of the other way may still be spinning
            start = time.perf_counter()
            answers.append(way())
            seconds.append(time.perf_counter() - start)
        gaps.append(answers[0] - answers[1])  # of losses: below zero where the other way stops before the optimum
        ratios.append(seconds[1] / seconds[0])
    ends = [float(min(gap.min() for gap in gaps)), float(max(gap.max() for gap in gaps))]
    record: dict[str, object] = {"job": given.job, "ours - theirs, from and to": ends, "counts": counts}
    if not given.count:
        record["ratio"] = {"median": float(np.median(ratios)), "all": ratios}
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
