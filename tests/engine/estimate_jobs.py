"""Ten jobs, each estimated and then measured: `python -m tests.engine.estimate_jobs [--part 0.1] [--cpu]`.

`measured(job, part)` does one of them in this process; memory is counted tensor by tensor (CUDA: what its allocator
reports), and on Linux also as the growth of the resident set.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import pellucid
from pellucid.core.targets import Target
from pellucid.engine import memory, store
from pellucid.methods import estimate

BLOCKS, WIDTH = 12, 768


@functools.cache
def subject(kind: str) -> pellucid.Subject:
    """Return a random model of 12 layers, 768 wide."""
    torch.manual_seed(0)
    if kind == "gpt2":
        model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=BLOCKS, n_embd=WIDTH))
    else:
        config = transformers.LlamaConfig(
            hidden_size=WIDTH, intermediate_size=2048, num_hidden_layers=BLOCKS, num_attention_heads=12,
            vocab_size=32_000, max_position_embeddings=4096, attn_implementation="eager" if kind == "eager" else "sdpa",
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return pellucid.load(model.eval().to(device))


@dataclass(frozen=True)
class Job:
    """A method on a model: tokens of the prompt and of the continuation, and what else is passed at full size.

    `sized` names the parameter, if any, that a part of the job scales.
    """

    method: str
    kind: str
    tokens: int
    continuation: int = 1
    each: bool = False
    parameters: Mapping[str, Any] | None = None
    sized: str = ""


JOBS = {
    "integrated gradients, 64 tokens": Job("integrated_gradients", "gpt2", 64, parameters={"steps": 50}, sized="steps"),
    "integrated gradients, span": Job("integrated_gradients", "llama", 64, 32, parameters={"steps": 20}, sized="steps"),
    "gradient x input, matrix": Job("gradient_x_input", "gpt2", 64, 32, True),
    "gradient x input, long, eager": Job("gradient_x_input", "eager", 384),
    "SmoothGrad, 100 tokens": Job("smoothgrad", "llama", 100, parameters={"samples": 40}, sized="samples"),
    "occlusion, 128 tokens": Job("occlusion", "gpt2", 128, parameters={"replacement": "delete"}),
    "occlusion, matrix": Job("occlusion", "llama", 128, 32, True, {"replacement": 3}),
    "occlusion, embeddings": Job("occlusion", "llama", 48, parameters={"replacement": "zero"}),
    "Shapley, 20 units": Job(
        "shapley_values", "llama", 120, 32, parameters={"permutations": 24, "replacement": "delete",
        "unit": [(6 * i, 6 * i + 6) for i in range(20)]}, sized="permutations",
    ),
    "patching, 12 x 64": Job("activation_patching", "gpt2", 64),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was said before and what was seen."""

    estimated: Any
    seconds: float
    counted: float
    resident: float


def call(job: Job, part: float = 1.0, seed: int = 0) -> tuple[pellucid.Subject, list[Any], dict[str, Any]]:
    """Return the subject and arguments of a job, its prompt drawn from a seed."""
    rng = np.random.default_rng(seed)
    prompt, other = ([int(i) for i in rng.integers(5, 30_000, job.tokens)] for _ in range(2))
    ids = [int(i) for i in rng.integers(5, 30_000, job.continuation)]
    given = dict(job.parameters or {})
    if job.sized:
        given[job.sized] = max(4, round(part * given[job.sized]))
    given["target"] = Target(ids, each=job.each, kind="continuation") if job.continuation > 1 else ids[0]
    if job.method == "activation_patching":
        given["corrupt"] = other
    return subject(job.kind), [prompt], given


def measured(name: str, part: float = 1.0, seed: int = 0, clock: Callable[[], float] = time.perf_counter) -> Measured:
    """Estimate a job, run it twice (for time, and for memory) with nothing known beforehand, and return both."""
    on, given, parameters = call(JOBS[name], part, seed)

    def run() -> None:
        with store.unused():
            pellucid.run(JOBS[name].method, on, *given, **parameters)

    found = estimate(JOBS[name].method, on, *given, **parameters)
    cuda = on.input_device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before, base = _resident(reset=True), torch.cuda.memory_allocated() if cuda else 0
    start = clock()
    run()
    seconds = clock() - start
    resident = _resident(reset=False) - before
    counted = torch.cuda.max_memory_allocated() - base if cuda else memory.peak(run)
    return Measured(found, seconds, counted, resident)


def _resident(*, reset: bool) -> int:
    """Return the resident set, or with `reset=False` its largest since it was last asked with `reset=True`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that is free must not hide what the run takes
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    name = "VmRSS:" if reset else "VmHWM:"
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith(name))


def main() -> None:
    """Print one line per job: measured / estimated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", type=float, default=1.0, help="share of the samples of each job")
    parser.add_argument("--cpu", action="store_true", help="count processor time, on a machine that is busy otherwise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cpu:
        time.perf_counter = time.process_time
    clock = time.process_time if options.cpu else time.perf_counter
    for name in JOBS:
        if options.only not in name:
            continue
        found = measured(name, options.part, clock=clock)
        said = found.estimated
        print(
            f"{name:32} {found.seconds:7.1f} s / {said.seconds:7.1f} = {found.seconds / said.seconds:4.2f}   "
            f"{found.counted / 1e6:7.0f} MB / {said.bytes / 1e6:7.0f} = {found.counted / said.bytes:4.2f}   "
            f"resident {found.resident / 1e6:7.0f} MB = {found.resident / said.bytes:4.2f}   {said.forwards:.0f}F "
            f"{said.backwards:.0f}B",
            flush=True,
        )


if __name__ == "__main__":
    main()
