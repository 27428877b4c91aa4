"""Make the virtual environment: `python3 scripts/setup.py .venv [EXTRA ...]`.

It needs nothing but Python itself. An environment that already has every pinned version is left as it is, so that a
developer's own one is reused, without a network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)

# Runs inside the environment: names what is missing or of another version than the pin.
CHECK = """
import importlib.metadata as metadata, json, pathlib, re, sys
root, pins, extras = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), set(sys.argv[3:])
def name_of(text): return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", text)[0]).lower()
import tomllib
project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
optional = project["optional-dependencies"]
wanted, todo = set(), [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
while todo:
    line = todo.pop()
    if line.startswith("pellucid["):
        todo += [inner for extra in line[9:-1].split(",") for inner in optional[extra]]
    else:
        wanted.add(name_of(line))
for name in sorted(wanted):
    try:
        found = metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is missing")
    if found != pins.get(name, found):
        sys.exit(f"{name} is {found}, not {pins[name]}")
try:
    origin = json.loads(metadata.distribution("pellucid").read_text("direct_url.json") or "{}").get("url", "")
except metadata.PackageNotFoundError:
    sys.exit("pellucid is missing")
if origin != root.as_uri():
    sys.exit("pellucid is installed from another folder")
"""


def pins() -> dict[str, str]:
    """Return the exact versions of `constraints.txt` by normalised name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version.strip() for name, version in pairs}


def missing(python: Path, extras: list[str]) -> str:
    """Say what the environment lacks, or return the empty string."""
    command = [str(python), "-c", CHECK, str(ROOT), json.dumps(pins()), *extras]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["the check failed"])[-1]


def run(what: str, *command: str) -> None:
    """Run one step, say what it does and how long it took, and show its output only when it fails."""
    print(f"  {what} ...", end=" ", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{time.perf_counter() - start:.0f} s")
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
        sys.exit(f"Set-up stopped: '{what}' failed (exit {done.returncode}); its output is above.")


def main(folder: str, *extras: str) -> None:
    """Make or complete the environment in `folder` with the package and the named extras."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"The pinned versions need Python {OLDEST[0]}.{OLDEST[1]} or newer, but this is {sys.version.split()[0]}; "
            "name another one: make PYTHON=python3.12 ..."
        )
    start = time.perf_counter()
    venv = Path(folder).absolute()
    python = venv / "bin" / "python"
    lacks = missing(python, list(extras)) if python.exists() else "there is no environment yet"
    if lacks:
        print(f"Setting up {folder} ({lacks}):", flush=True)
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt")
        if not python.exists():
            run("virtual environment", sys.executable, "-m", "venv", str(venv))
        run(f"torch {pins()['torch']}", *pip, f"torch=={pins()['torch']}")
        what = f"pellucid[{','.join(extras)}]" if extras else "pellucid"
        run(f"{what} and what it needs", *pip, "-e", f".[{','.join(extras)}]" if extras else ".")
        still = missing(python, list(extras))
        if still:
            sys.exit(f"Set-up ended, but {still}; remove {folder} and try again.")
    seconds = time.perf_counter() - start
    (venv / "setup.json").write_text(json.dumps({"seconds": round(seconds, 1)}), encoding="utf-8")
    print(f"Set-up took {seconds:.0f} s." if lacks else f"{folder} is complete; reusing it.")


if __name__ == "__main__":
    main(*sys.argv[1:])
