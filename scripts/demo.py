"""Explain one prompt with the bundled model, as `make demo` does, and say how long set-up and explanation took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "The capital of France is"


def main(venv: str = ".venv") -> int:
    """Run `pellucid explain` on the demo prompt; return its exit status."""
    page = Path("out") / "demo.html"
    page.parent.mkdir(exist_ok=True)
    page.unlink(missing_ok=True)
    command = ["explain", PROMPT, "--html", str(page)]
    print(f'$ pellucid explain "{PROMPT}" --html {page}\n', flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, "-m", "pellucid", *command], check=False).returncode
    seconds = time.perf_counter() - start
    if status:
        return status
    if not page.is_file():
        print(f"The command ended without an error, but {page} was not written.", file=sys.stderr)
        return 1
    record = Path(venv) / "setup.json"
    setup = json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.is_file() else 0.0
    print(f"\nSet-up took {setup:.0f} s, the explanation {seconds:.1f} s (loading torch and the model included).")
    print(f"The page: {page.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
