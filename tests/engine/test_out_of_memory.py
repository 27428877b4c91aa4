"""Real allocations that the system refuses: the run goes on in smaller batches, or ends in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import ResourceError
from pellucid.engine import memory

ROOT = Path(__file__).resolve().parents[2]
resource = pytest.importorskip("resource")
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set by what /proc says")

# The model must be large enough that a batch of 4096 tokens takes hundreds of megabytes, and a row only few.
WORKER = """
    import json, resource, sys
    import numpy as np, torch, transformers
    torch.set_num_threads(1)
    import pellucid
    from pellucid.engine import gradients, planning, scoring
    from tests.state import changed, model_state

    megabytes, method = int(sys.argv[1]), sys.argv[2]
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=16_384, num_hidden_layers=2,
                                      num_attention_heads=2, vocab_size=200, pad_token_id=0)
    subject = pellucid.load(transformers.LlamaForCausalLM(config).eval())
    scoring.trusted = lambda subject: False
    prompt = [5 + i % 90 for i in range(int(sys.argv[3]))]
    options = dict(target=7) | {"occlusion": {"replacement": 3}, "integrated_gradients": {"steps": 40}}.get(method, {})
    tried, native = [], planning.in_batches

    def watched(items, lengths, run, *rest, **named):
        def counted(batch):
            tried.append(len(batch))
            return run(batch)
        return native(items, lengths, counted, *rest, **named)

    for module in (scoring, gradients):
        module.in_batches = watched
    before = model_state(subject.model)
    pellucid.run(method, subject, prompt[:4], **options)  # what is made once is made now
    used = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")][0] << 10
    limits = resource.getrlimit(resource.RLIMIT_AS)
    tried.clear()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), limits[1]))
    try:
        found = pellucid.run(method, subject, prompt, **options).scores.tolist()
    except pellucid.PellucidError as error:
        found = f"{type(error).__name__}: {error}"
    limited = list(tried)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    freely = pellucid.run(method, subject, prompt, **options).scores.tolist()
    print(json.dumps([limited, found, freely, changed(before, model_state(subject.model))]))
"""


def limited(megabytes: int, method: str, tokens: int = 64) -> tuple[list[int], object, list[float], list[str]]:
    """Run a method in a process that may take so much more memory; return its batches, answers and what it changed."""
    import json

    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else what was freed before the limit serves large tensors
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WORKER), str(megabytes), method, str(tokens)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@linux
@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_a_batch_that_cannot_be_allocated_is_halved_and_the_answer_is_right(method: str) -> None:
    batches, found, freely, different = limited(200, method)
    assert isinstance(found, list), found
    assert max(batches) > 2 * min(batches)  # it did run out
    assert found == pytest.approx(freely, abs=1e-5)
    assert different == []


@pytest.mark.slow
@linux
def test_a_single_row_that_cannot_be_allocated_is_one_sentence() -> None:
    batches, found, _, different = limited(60, "gradient_x_input", 1500)
    assert str(found).startswith("ResourceError: "), found
    assert str(found).count(". ") == 0
    assert batches[-1] == 1
    assert different == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (ResourceError("The model ran out of memory."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_running_out(error: Exception, expected: bool) -> None:
    assert memory.ran_out(error) is expected


def test_an_allocation_that_torch_refuses_counts() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.ran_out(caught.value)


def test_the_limit_of_the_process_is_what_is_available() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    free = memory.available()
    used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
    try:
        resource.setrlimit(resource.RLIMIT_AS, ((used << 10) + (100 << 20), before[1]))
        assert memory.available() <= 100 << 20
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free > 100 << 20


def test_the_limits_of_a_container_are_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": ["MemTotal: 100 kB", "MemAvailable:    9000000 kB"],
        "/proc/self/cgroup": ["0::/outer/inner"],
        "/sys/fs/cgroup/outer/memory.max": ["3000"],
        "/sys/fs/cgroup/outer/memory.current": ["1000"],
        "/sys/fs/cgroup/outer/memory.stat": ["anon 5", "inactive_file 500"],
        "/sys/fs/cgroup/outer/inner/memory.max": ["max"],
        "/sys/fs/cgroup/outer/inner/memory.current": ["900"],
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(str(path), []))
    assert memory.available() == 2500
    files["/proc/self/cgroup"] = ["5:cpu,memory:/job", "3:pids:/job"]
    files["/sys/fs/cgroup/memory/job/memory.limit_in_bytes"] = ["700"]
    files["/sys/fs/cgroup/memory/job/memory.usage_in_bytes"] = ["100"]
    assert memory.available() == 600
    files["/sys/fs/cgroup/memory/job/memory.limit_in_bytes"] = [str(1 << 62)]
    assert memory.available() == 9_000_000 << 10


def test_the_peak_is_counted_until_tensors_are_freed() -> None:
    start = torch.zeros(1000)

    def run() -> None:
        first = start + 1
        second = first * 2
        del first
        third = second + second.view(10, 100).reshape(-1)  # a view is no new memory
        del second, third
        torch.add(start, 1, out=start)

    assert memory.peak(run) == 8000
    assert memory.peak(lambda: torch.zeros(10, dtype=torch.float64)) == 80
    assert memory.peak(lambda: start.mul_(2)) == 0


def test_the_peak_sees_what_a_graph_keeps() -> None:
    leaf = torch.zeros(1000, requires_grad=True)

    def run(keep: bool) -> None:
        with torch.set_grad_enabled(keep):
            value = leaf
            for _ in range(10):
                value = value.exp()

    assert memory.peak(lambda: run(True)) == 40_000
    assert memory.peak(lambda: run(False)) == 8000


def test_the_peak_sees_packed_weights_until_they_are_dropped() -> None:
    weight = torch.zeros(64, 32)

    def run() -> None:
        packed = weight.to_mkldnn()
        del packed
        torch.zeros(32)

    assert memory.peak(run) == 64 * 32 * 4
