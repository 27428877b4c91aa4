"""Make one virtual environment per peer: torch first, then transformers, then pellucid (editable), then the peer.

`python bench/environments.py [PEER ...]`; they stand in bench/.envs and take about 1.6 GiB each. All versions are those
of constraints.txt, and the peer's own below, so that both sides of a comparison use the same torch and transformers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / ".envs"
NO_PEER = ("published", "own")  # what is compared there needs no package: it runs in the developer's environment

PEERS: dict[str, tuple[str, ...]] = {
    "captum": ("captum==0.9.0",),
    "inseq": ("inseq==0.7.1", "typeguard==2.13.3"),
    "transformer-lens": ("transformer-lens==4.3.0",),
    "nnsight": ("nnsight==0.8.1",),
    "lxt": ("lxt==2.1",),
    "shap": ("shap==0.51.0",),
    "context-cite": ("context-cite==0.0.4",),
}
# Taken without what they ask for: LXT needs torch and transformers alone for language models, and asks for torchvision.
ALONE = ("lxt",)
# What a peer brings in without need and what then keeps transformers from importing its models.
BREAKS = ("torchvision",)


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, whether or not it is there."""
    return Path(sys.executable) if peer in NO_PEER else FOLDER / peer / "bin" / "python"


def pin(package: str) -> str:
    """Return `package==version` from constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"constraints.txt does not pin {package}.")
    return f"{package}=={found[1]}"


def installed(python: Path, wanted: tuple[str, ...]) -> bool:
    """Return whether an environment has these versions and this pellucid."""
    code = (
        "import importlib.metadata as m, sys, pellucid\n"
        "ok = all(m.version(w.split('==')[0]).split('+')[0] == w.split('==')[1] for w in sys.argv[2:])\n"
        "sys.exit(not (ok and pellucid.__file__.startswith(sys.argv[1])))"
    )
    command = [str(python), "-c", code, str(ROOT), *wanted]
    return python.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def make(peer: str) -> str:
    """Make or complete one environment; return "" or what went wrong."""
    if peer in NO_PEER:
        return ""
    torch, transformers = pin("torch"), pin("transformers")
    python, wanted = FOLDER / peer / "bin" / "python", PEERS[peer]
    if installed(python, (torch, transformers, *wanted)):
        return ""
    print(f"bench/.envs/{peer}: {' '.join((torch, transformers, *wanted))}", flush=True)
    if not python.exists():
        venv.create(FOLDER / peer, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    steps = [[*pip, torch], [*pip, transformers], [*pip, "-e", "."]]
    if wanted:
        steps.append([*pip, *(["--no-deps"] if peer in ALONE else []), *wanted])
    for step in steps:
        done = subprocess.run(step, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode and step is steps[-1] and wanted:
            # Its own pins would drag other versions in: take the package as it is, with what is already there.
            done = subprocess.run([*step, "--no-deps"], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    for package in BREAKS:
        remove = [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", package]
        subprocess.run(remove, capture_output=True, check=False)
    return "" if installed(python, (torch, transformers, *wanted)) else "the versions asked for are not there"


def main(names: list[str]) -> int:
    """Make the named environments, or all of them; return the number that failed."""
    failed = 0
    for peer in names or PEERS:
        problem = make(peer)
        failed += bool(problem)
        print(f"bench/.envs/{peer}: {problem or 'ready'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
