"""Freed memory stays in the process while an engine call runs, and only then."""

from __future__ import annotations

import resource

import pytest
import torch

from pellucid.models import freed_memory, kernels

BLOCK = 30 << 20  # bytes


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in freed_memory.OWN_CHOICE:
        monkeypatch.delenv(name, raising=False)
    freed_memory._mallopt.cache_clear()


def faults() -> int:
    """Fill four blocks, free them, and return how many pages the system handed out for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(BLOCK // 4) + 1 for _ in range(4)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(freed_memory._mallopt() is None, reason="there is no glibc here, or the environment chose for it")
def test_what_is_freed_is_given_again_and_not_handed_back() -> None:
    with freed_memory.kept():
        faults()
        again = min(faults() for _ in range(3))
    pages = 4 * BLOCK / resource.getpagesize()
    assert again < 0.1 * pages, "the same pages serve again"


def test_the_last_of_several_calls_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(freed_memory, "_mallopt", lambda: lambda *given: asked.append(given) or 1)
    with freed_memory.kept(), pytest.raises(ValueError, match="stop"), freed_memory.kept():
        raise ValueError("stop")
    kept = [
        (freed_memory.M_MMAP_THRESHOLD, freed_memory.MOST_FROM_HEAP),
        (freed_memory.M_TRIM_THRESHOLD, freed_memory.KEPT),
    ]
    assert asked == [*kept, (freed_memory.M_TRIM_THRESHOLD, freed_memory.USUAL)]


def test_a_choice_made_by_the_environment_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert freed_memory._mallopt() is None
    freed_memory._mallopt.cache_clear()


def test_short_calls_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    import pellucid
    from tests.tiny import TINY

    monkeypatch.setattr(freed_memory, "kept", lambda: pytest.fail("it was asked"))
    with kernels.session(pellucid.load(TINY["gpt2"]()), kernels.LEAST_TOKENS - 1):
        pass
