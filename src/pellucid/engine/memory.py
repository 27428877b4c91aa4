"""The memory that a computation takes, the memory that there is, and what it looks like when it runs out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pellucid.core.errors import ResourceError

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

# What torch, its allocators and oneDNN say where memory runs out, besides their own classes of errors.
MESSAGES = (
    "not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc",
    "could not create a memory", "unable to allocate", "could not allocate",
)  # fmt: skip
UNKNOWN = 4 << 30


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; a plain RuntimeError is judged by its text."""
    if isinstance(error, (ResourceError, MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in MESSAGES)


def available(device: torch.device | None = None) -> int:
    """Return how many bytes can still be taken on a device, by the limits of system, container and process."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return max(0, min([*_of_system(), *_of_container(), *_of_process()], default=UNKNOWN))


def _of_system() -> list[int]:
    found = [int(line.split()[1]) << 10 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    if not found and resource is not None:
        import os

        with suppress(ValueError, OSError):  # no such file on macOS: half of what is built in
            found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    return found


def _of_container() -> list[int]:
    """Return what the control groups of the process leave, in both of their forms; files that are cached can go."""
    found = []
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        folder = root / path.strip().lstrip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            numbers = [int(text) for name in names for text in _lines(place / name) if text.strip().isdigit()]
            cached = [int(text.split()[1]) for text in _lines(place / "memory.stat") if text[:14] == "inactive_file "]
            if len(numbers) == 2 and numbers[0] < 1 << 60:
                found.append(numbers[0] - numbers[1] + sum(cached))
    return found


def _of_process() -> list[int]:
    """Return what `ulimit -v` and `ulimit -d` leave."""
    if resource is None:
        return []
    used = {line.split(":")[0]: int(line.split()[1]) << 10 for line in _lines("/proc/self/status") if " kB" in line}
    limits = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))
    soft = [(resource.getrlimit(limit)[0], used.get(name)) for limit, name in limits]
    return [limit - taken for limit, taken in soft if limit != resource.RLIM_INFINITY and taken is not None]


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


class _Live(TorchDispatchMode):
    """Counts the bytes of every storage made while it is open, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.logsumexp.default:  # holds a copy of its input inside, which no dispatcher sees
            self.most = max(self.most, self.now + args[0].nbytes)
        given = {id(owner) for value in tree_iter((args, kwargs)) for owner, _ in _owned(value)}
        for value in tree_iter(result):
            for owner, size in _owned(value):
                if id(owner) not in given:
                    self._add(owner, size)
        return result

    def _add(self, owner: Any, size: int) -> None:
        if id(owner) in self.known:
            return
        self.known.add(id(owner))
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(owner, self._free, id(owner), size).atexit = False

    def _free(self, owner: int, size: int) -> None:
        self.known.discard(owner)
        self.now -= size


def _owned(value: Any) -> list[tuple[Any, int]]:
    """Return what holds the memory of a tensor, and its bytes: its storage, or itself where the layout hides that."""
    if not isinstance(value, torch.Tensor) or value.device.type == "meta":
        return []
    if value.layout is torch.strided:
        storage = value.untyped_storage()
        return [(storage, storage.nbytes())]
    return [(value, value.numel() * value.element_size())] if value.is_mkldnn else []


def peak(run: Callable[[], object]) -> int:
    """Return the most bytes of tensors that a computation holds at once, besides those that were there before.

    Counted, not measured: the same on every machine and undisturbed by other work. Workspaces inside kernels are not
    seen.
    """
    with _Live() as live:
        kept = run()
        del kept
    return live.most
