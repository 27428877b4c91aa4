"""A result as a row: its document and what it can be found by; its tensors in a file named by their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from pellucid.core import encoding, saving
from pellucid.core.errors import FileError
from pellucid.core.results import Explanation, Result, Scores, Text
from pellucid.store.schema import ChunkRow, ResultRow, RunRow, now

ALONE = "result"  # the key of a result that is the only one of its run
# Databases keep neither half surrogate pairs nor, PostgreSQL, NUL; the document beside it keeps both.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def tensors_path(folder: Path, digest: str) -> Path:
    """Return where the tensors of a result lie: in 256 folders, so that none grows too large to list."""
    return folder / digest[:2] / f"{digest}.safetensors"


def columns(folder: Path, place: int, result: Result) -> dict[str, Any]:
    """Write the tensors of a result and return the columns of its row."""
    document, tensors = saving.pack(result)
    digest = document["tensors"]
    path = tensors_path(folder, digest)
    try:
        os.utime(path)  # named by its content, an equal file is the same file; now `tidy` sees that it is wanted
    except FileNotFoundError:
        saving.write_bytes(path, tensors)
    inner = result.results if isinstance(result, Explanation) else ()
    return {
        "place": place,
        "kind": type(result).__name__,
        "methods": joined(r.provenance.method for r in (result, *inner)),
        "text": searchable(_text(result)),
        "model": searchable(result.provenance.model),
        "document": encoding.dump(document),
        "tensors": digest,
    }


def add_alone(session: Session, row: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> int:
    """Add one result as a finished run of its own and return the number of the result."""
    written, digest = configuration(config)
    run = RunRow(name=searchable(name), config=written, config_hash=digest, finished=True, ended=now())
    session.add(run)
    session.flush()
    chunk = ChunkRow(run_id=run.id, key=ALONE)
    session.add(chunk)
    session.flush()
    result = ResultRow(chunk_id=chunk.id, **row)
    session.add(result)
    session.flush()
    return result.id


def opened(row: ResultRow, folder: Path, name: str) -> Result:
    """Rebuild the result of a row; raise `FileError` when its document or its tensors are damaged or missing."""
    path = tensors_path(folder, row.tensors)

    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise FileError(
                f"The tensors of {name} cannot be read at {str(path)!r} ({error.strerror}); restore the file."
            ) from error

    return saving.unpack(encoding.parse(row.document, f"The document of {name}"), read, f"The store: {name}")


def configuration(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the JSON of a configuration, the same whatever the order of its keys, and the hash of that."""
    return hashed(encoding.encode_value(dict(config)))


def hashed(document: Any) -> tuple[str, str]:
    """Return the JSON of an encoded configuration, the same whatever the order of its keys, and the hash of that."""
    written = encoding.dump(_sorted(document))
    return written, hashlib.sha256(written.encode()).hexdigest()


def searchable(text: str) -> str:
    """Return text that every database can keep and compare."""
    return UNSTORABLE.sub("\ufffd", text)


def joined(names: Iterable[str]) -> str:
    """Return names as one text in which each stands between bars, so that a search for "|name|" finds it whole."""
    return "".join(f"|{name}" for name in dict.fromkeys(searchable(name) for name in names) if name) + "|"


def split(names: str) -> tuple[str, ...]:
    """Return the names that `joined` joined."""
    return tuple(name for name in names.split("|") if name)


def _text(result: Result) -> str:
    tokens = result.tokens if isinstance(result, Scores | Explanation) else None
    parts = [
        result.title,
        (tokens.text or "".join(tokens.pieces)) if tokens else "",
        result.text if isinstance(result, Text) else "",
    ]
    return "\n".join(part for part in parts if part)


def _sorted(document: Any) -> Any:
    """Order the keys of objects, so that equal configurations have equal JSON; lists keep their order."""
    if isinstance(document, dict):
        return {key: _sorted(document[key]) for key in sorted(document)}
    return [_sorted(item) for item in document] if isinstance(document, list) else document
