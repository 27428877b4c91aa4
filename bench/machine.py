"""What machine this is, and which versions ran on it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "captum",
    "inseq",
    "transformer-lens",
    "nnsight",
    "typeguard",
    "jaxtyping",
)


def machine(device: str) -> dict[str, Any]:
    """Return processor, memory, threads and accelerator."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    memory = Path("/proc/meminfo")
    total = int(memory.read_text(encoding="ascii").split()[1]) / 2**20 if memory.exists() else 0.0
    return {
        "processor": facts.get("model name", platform.processor()),
        "family": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "vector": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "cores": torch.get_num_threads(),
        "memory_gib": round(total, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else "none",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
