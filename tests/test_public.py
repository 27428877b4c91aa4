"""The names that `import pellucid` gives: sorted, complete, and there without torch."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pellucid

PROMISED = {"explain", "load", "methods", "open", "run"}
TIMED = """
import sys, time
start = time.perf_counter()
import pellucid
seconds = time.perf_counter() - start
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "matplotlib", "pandas"})
print(seconds, *heavy)
"""


def import_once() -> tuple[float, list[str]]:
    done = subprocess.run([sys.executable, "-c", TIMED], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    return float(seconds), heavy


def test_importing_is_quick_and_light() -> None:
    runs = [import_once() for _ in range(3)]
    seconds = statistics.median(seconds for seconds, _ in runs)
    print(f"import pellucid: {seconds:.3f} s")
    assert all(heavy == [] for _, heavy in runs)
    assert seconds < 0.3


def test_all_is_sorted_and_complete() -> None:
    assert list(pellucid.__all__) == sorted(pellucid.__all__)
    assert len(set(pellucid.__all__)) == len(pellucid.__all__)
    assert set(pellucid.__all__) >= PROMISED
    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    assert set(pellucid.__all__) <= set(dir(pellucid))


def test_listing_methods_needs_no_torch() -> None:
    script = "import pellucid, sys; assert len(pellucid.methods()) > 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    assert not hasattr(pellucid, "explian")
