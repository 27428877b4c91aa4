"""A key of everything that decides what a model answers: every bit of its weights, its settings and its edits.

Version counters and addresses alone would miss a write through `.data`, which leaves both as they were, and a sample
of the weights would miss a change between the samples. So all bits are read: per 16 kB one sum of the 64-bit words
times fixed random odd factors, modulo 2**64, in which any one change shows for certain and any other but by a chance
of about 2**-60. Measured on one core: up to 4.9 GB/s, so for 124 million float32 weights 0.1 s, as long as a forward
over 16 to 50 tokens.
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.models import weights
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

WORDS = 2048
ROWS = 8192
PLAIN = (bool, int, float, str)
HELD = (*PLAIN, type(None), dict, list, tuple)
OWN = ("training", "_is_hf_initialized")
CHEAP_BYTES = 1 << 24

_steady: ContextVar[weakref.WeakKeyDictionary[Any, tuple[Any, bytes]] | None] = ContextVar(
    "pellucid_identity_steady", default=None
)


@contextmanager
def steady() -> Iterator[None]:
    """Read all bits of a model once in this context, and again only where a tensor was replaced or its version moved.

    For runs of many small questions, each of which would take longer to know the model by than to answer. What runs in
    the context must not write to weights past their version counters, as `.data` does.
    """
    token = _steady.set(weakref.WeakKeyDictionary())
    try:
        yield
    finally:
        _steady.reset(token)


def is_steady() -> bool:
    """Return whether a steady context acts here."""
    return _steady.get() is not None


def identity(subject: Subject) -> bytes | None:
    """Return a key that differs wherever the model or its edits would answer differently, or None where none can.

    None is returned where something that cannot be read may act: an edit that is a function or draws by row, hooks or
    replaced forwards of others, weights that are offloaded or packed; and for black boxes.
    """
    model = subject.model
    if model is None or any(callable(edit.how) for edit in subject.edits):
        return None
    named = dict(model.named_modules())
    if any(_is_foreign(module) or weights.is_packed(module) for module in named.values()):
        return None
    tensors = list(_tensors(named.values()))
    if any(tensor.device.type == "meta" for tensor in tensors):
        return None
    digest = hashlib.blake2b(digest_size=16)
    settings = (*_settings(model, named), weights.adapters(model))
    digest.update(repr((subject.kind, subject.head, settings)).encode())
    for edit in subject.edits:
        digest.update(_of_edit(edit))
    digest.update(_bits_of(model, tensors))
    return digest.digest()


def _bits_of(model: Any, tensors: list[torch.Tensor]) -> bytes:
    known = _steady.get()
    if known is None:
        return bits(tensors)
    state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
    found = known.get(model)
    if found is None or found[0] != state:
        found = known[model] = (state, bits(tensors))
    return found[1]


def is_cheap(subject: Subject) -> bool:
    """Return whether reading all weights takes no longer than the smallest forward."""
    return sum(p.numel() * p.element_size() for p in subject.model.parameters()) <= CHEAP_BYTES


def bits(tensors: list[torch.Tensor]) -> bytes:
    """Return a hash of the shapes, types and all bits of tensors; the sums are made on the tensors' own devices."""
    digest = hashlib.blake2b(digest_size=16)
    sums = []
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}{tensor.device}".encode())
        flat = _bytes(tensor)
        even = len(flat) // 8 * 8
        sums += _sums(flat[:even].view(torch.int64))
        digest.update(flat[even:].cpu().numpy().tobytes())
    for device in sorted({str(part.device) for part in sums}):
        together = torch.cat([part for part in sums if str(part.device) == device])
        digest.update(together.cpu().numpy().tobytes())
    return digest.digest()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor in a row, where they can be seen as words of 64 bits."""
    flat = (tensor.int_repr() if tensor.is_quantized else tensor).detach().reshape(-1)
    if flat.stride(0) != 1 or flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def _sums(words: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield sums of 64-bit words times fixed factors, one per `WORDS` of them."""
    factors = _factors(words.device)
    whole = len(words) // WORDS * WORDS
    if whole:
        rows = words[:whole].view(-1, WORDS)
        if words.device.type == "cpu":
            yield torch.mv(rows, factors)
        else:  # whole numbers have no matrix product there
            yield from ((part * factors).sum(1) for part in rows.split(ROWS))
    if whole < len(words):
        yield (words[whole:] * factors[: len(words) - whole]).sum()[None]


@functools.cache
def _factors(device: torch.device) -> torch.Tensor:
    drawn = np.frombuffer(hashlib.shake_256(b"factors").digest(8 * WORDS), dtype=np.int64)
    return torch.from_numpy(drawn | 1).to(device)  # odd, so that no change of a word is multiplied away


def _tensors(modules: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors that modules compute with: weights, buffers, and those that they hold as attributes."""
    seen: set[int] = set()
    for module in modules:
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, torch.Tensor) and id(value) not in seen:
                seen.add(id(value))
                yield from weights.plain(value)


def _is_foreign(module: Any) -> bool:
    """Return whether a hook or a replaced forward acts that is not accelerate's."""
    own = vars(module)
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or ("forward" in own and "_hf_hook" not in own))


def _settings(model: Any, named: dict[str, Any]) -> tuple[Any, ...]:
    """Return the plain values that modules and the config hold, and the precision that products are made in."""
    config = {key: repr(value) for key, value in vars(model.config).items() if key[:1] != "_" and type(value) in HELD}
    modules = [
        (
            name,
            type(module).__qualname__,
            [(k, v) for k, v in vars(module).items() if type(v) in PLAIN and k not in OWN],
        )
        for name, module in named.items()
    ]
    attention = getattr(model.config, "_attn_implementation", "")
    return (sorted(config.items()), attention, modules, _precision())


def _precision() -> list[Any]:
    """Return the switches that decide how exactly products are made."""
    casts = [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    onednn = getattr(torch.backends.mkldnn, "matmul", None)  # absent in older versions
    return [torch.get_float32_matmul_precision(), getattr(onednn, "fp32_precision", ""), *casts]


def _of_edit(edit: Edit) -> bytes:
    where = sorted((axis, repr(index)) for axis, index in edit.where.items())
    value = edit.value
    held = bits([value]) if isinstance(value, torch.Tensor) else repr(value).encode()
    return repr((edit.site, edit.how, where, edit.phase, edit.first_step, edit.seed)).encode() + held
