"""Save results to folders and open them again: `result.json` + `tensors.safetensors`, whole or not at all.

No pickle, and no torch: arrays are NumPy. See docs/adr/0002-saved-results.md.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from pellucid.core import encoding
from pellucid.core.errors import FileError, InputError, ResourceError
from pellucid.core.results import Result

SCHEMA = 1
FORMAT = "pellucid-result"
DOCUMENT = "result.json"
TENSORS = "tensors.safetensors"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Save a result to the folder `path`, whole or not at all, and return the folder.

    Arrays come back bit for bit (float16/32/64, integers, bool). An older result at `path` is replaced only when the
    new one is completely on disk; on any error or Ctrl-C it stays as it was and nothing half-written remains.

    Raises:
        FileError: if `path` holds something that is not a saved result, or cannot be written.
        ResourceError: if the disk is full or a size limit is reached.
        InputError: if the result holds an array that is not numeric.
    """
    folder = Path(path)
    document, tensors = pack(result)
    with replaced_folder(folder) as fresh:
        write_synced(fresh / TENSORS, tensors)
        write_synced(fresh / DOCUMENT, encoding.dump(document, indent=1).encode("ascii"))
    return folder


def open_result(path: str | os.PathLike[str]) -> Result:
    """Open a result that `save` wrote.

    Raises:
        FileError: if the folder or a file in it is missing, truncated, corrupted, or of a newer version.
    """
    folder = Path(path)
    if not folder.exists() and _aside(folder).is_dir():
        folder = _aside(folder)
    if not folder.is_dir():
        raise FileError(f"No saved result was found at {str(path)!r}; give the folder that save() returned.")
    document = encoding.parse(_read(folder / DOCUMENT), str(folder / DOCUMENT))
    return unpack(document, lambda: _read(folder / TENSORS), str(folder))


def pack(result: Result) -> tuple[dict[str, Any], bytes]:
    """Return the JSON document of a result and the bytes of its tensors file, tied together by a checksum."""
    tensors: dict[str, np.ndarray] = {}

    def keep(name: str, array: np.ndarray) -> dict[str, str]:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
        key = f"{len(tensors)}.{plain}"
        tensors[key] = np.asarray(array, order="C")
        return {"$tensor": key}

    encoded = encoding.encode(result, keep)
    content = safetensors.numpy.save(tensors)
    document = {"format": FORMAT, "schema": SCHEMA, "tensors": hashlib.sha256(content).hexdigest(), "result": encoded}
    return document, content


def unpack(document: Any, read_tensors: Callable[[], bytes], name: str) -> Result:
    """Rebuild a result from `pack`'s document; `read_tensors()` returns the bytes of the tensors file.

    Raises:
        FileError: beginning with `name`, if the format, the version, the checksum or a field does not fit.
    """
    if not encoding.is_object(document) or document.get("format") != FORMAT:
        raise FileError(f"{name} is no saved pellucid result; give the folder that save() returned.")
    schema: Any = document.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise FileError(
            f"{name} was saved with format {schema}, and this version reads up to {SCHEMA}; update pellucid."
        )
    content: bytes = read_tensors()
    if hashlib.sha256(content).hexdigest() != document.get("tensors"):
        raise FileError(f"{name} has a tensors file that was cut or changed after saving; restore it or save again.")
    try:
        tensors = safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise FileError(
            f"{name} has a tensors file that cannot be read ({error}); restore it or save again."
        ) from error
    return encoding.decode(document.get("result"), lambda mark: tensors[mark["$tensor"]], name)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` as UTF-8 to `path`, whole or not at all; a lone surrogate, which UTF-8 lacks, becomes "?"."""
    return write_bytes(path, text.encode("utf-8", "replace"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file whole or not at all: to a hidden sibling, to disk, then over the old file in one step.

    Raises:
        ResourceError: if the disk is full or a size limit is reached; the old file stays.
        FileError: if the path cannot be written.
    """
    path = Path(path)
    with _explained(path):
        target = path.resolve()
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(content)  # a device or pipe such as /dev/stdout has no sibling to swap with
            return path
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = _temporary(target)
        try:
            write_synced(fresh, content)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        _sync_folder(target.parent)
    return path


@contextlib.contextmanager
def replaced_folder(path: Path) -> Generator[Path, None, None]:
    """Yield a new hidden folder that takes the place of `path` when the block ends well, and vanishes otherwise.

    Only an empty folder or a saved result is ever replaced.
    """
    path = Path(path).absolute()
    with _explained(path):
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        fresh = _temporary(path)
        try:
            fresh.mkdir()
            yield fresh
            _sync_folder(fresh)
            _swap(fresh, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _sync_folder(path.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(fresh: Path, path: Path) -> None:
    """Put `fresh` at `path`; a folder cannot replace a full one in one step, so the old one steps aside first."""
    if not path.exists():
        fresh.rename(path)
        return
    aside = _aside(path)
    try:
        path.rename(aside)
        fresh.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _recover(path: Path) -> None:
    """Finish or undo a swap that a killed process left half-way."""
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        aside.rename(path)
    elif aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    path = path.absolute()
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.previous")


def _temporary(path: Path) -> Path:
    return path.with_name(f".pellucid-{uuid.uuid4().hex}.tmp")


def _check_replaceable(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() and {entry.name for entry in path.iterdir()} <= {DOCUMENT, TENSORS}:
        return
    raise FileError(f"Saving to {str(path)!r} would destroy something that is not a saved result; choose another path.")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; systems that cannot open folders (Windows) need and allow no such step."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"The saved result lacks {str(path)!r}; restore the file or save the result again.") from None
    except OSError as error:
        raise FileError(
            f"{str(path)!r} cannot be read ({error.strerror}); check the path and its permissions."
        ) from error


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """Turn errors of the operating system into sentences."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            f"Saving to {str(path)!r} ran out of memory; close other programs and save again."
        ) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(
                f"Saving to {str(path)!r} found no space left ({error.strerror}); free space or choose another disk, "
                "nothing was changed."
            ) from error
        reason = error.strerror or str(error)
        raise FileError(
            f"{str(path)!r} cannot be written ({reason}); choose another path, nothing was changed."
        ) from error
    except ValueError as error:
        if isinstance(error, InputError) or "null" not in str(error):
            raise
        raise FileError(f"{str(path)!r} is no path ({error}); choose another one.") from error
