"""Carry results from one store to another: one zip file, or a folder, of saved results with an index in JSON.

index.json                          what the store knew about each: run, key, date, note, tags
results/{number}/result.json        each as `result.save` writes it, so that `pellucid.open` reads the folder
results/{number}/tensors.safetensors
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pellucid.core import encoding, saving
from pellucid.core.errors import FileError, ResourceError
from pellucid.store.database import Database
from pellucid.store.records import UNSTORABLE, columns, hashed, joined, searchable, tensors_path
from pellucid.store.schema import ChunkRow, ResultRow, RunRow, now

FORMAT, SCHEMA, INDEX = "pellucid-export", 1, "index.json"
LARGEST = 2**31  # bytes of one file in an archive; more is damage, or an attack
_FIELDS = {"run": int, "name": str, "created": str, "key": str, "place": int, "saved": str, "note": str, "number": int}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Write = Callable[[str, bytes], None]
Read = Callable[[str], bytes]


def export(database: Database, folder: Path, path: Path, wanted: Any) -> int:
    """Write the results that `wanted` selects to `path`, a zip file or a folder, whole or not at all; return how many.

    Args:
        database: where the results are.
        folder: where their tensors are.
        path: ending in ".zip" for one file; a new or empty folder otherwise.
        wanted: a selection of the columns (ResultRow, ChunkRow, RunRow).

    Raises:
        FileError: if the tensors of a result are damaged, or the path cannot be written.
        ResourceError: if the disk is full.
    """
    with _written(path) as write, database.reading() as session:
        described: list[dict[str, Any]] = []
        found: Any = session.execute(wanted.order_by(ResultRow.id).execution_options(yield_per=100))
        for row, chunk, run in found:
            inside = f"results/{row.id}"
            write(f"{inside}/{saving.TENSORS}", _tensors(folder, row))
            document = encoding.parse(row.document, f"The document of the result {row.id}")
            write(f"{inside}/{saving.DOCUMENT}", encoding.dump(document, indent=1).encode("ascii"))
            described.append(
                {
                    "number": row.id, "run": run.id, "name": run.name, "config": json.loads(run.config),
                    "created": run.created, "key": chunk.key, "place": row.place, "kind": row.kind,
                    "methods": [m for m in row.methods.split("|") if m], "model": row.model, "text": row.text,
                    "saved": chunk.committed, "note": row.note, "tags": [t for t in row.tags.split("|") if t],
                }
            )  # fmt: skip
        index = {"format": FORMAT, "schema": SCHEMA, "results": described}
        write(INDEX, json.dumps(index, indent=1, allow_nan=False).encode("ascii"))
    return len(described)


def bring(database: Database, folder: Path, path: Path) -> int:
    """Read what `export` wrote into a store; return how many results are new.

    Results get new numbers and keep run, date, note and tags. What is there already (the same run and key) stays as it
    is, so an import that was interrupted is simply done again. Nothing is taken from a damaged archive but whole runs.

    Raises:
        FileError: if the archive is no export, damaged, or of a newer version.
    """
    with _source(path) as read:
        index = _index(read, path)
        by_run: dict[int, list[dict[str, Any]]] = {}
        for entry in index:
            by_run.setdefault(entry["run"], []).append(entry)
        count = 0
        for entries in by_run.values():
            for entry in entries:
                result = _result(read, entry["number"], path)
                entry["row"] = columns(folder, entry["place"], result) | {
                    "note": searchable(entry["note"]),
                    "tags": joined(entry["tags"]),
                }
            with database.writing() as session:
                count += _add(session, entries)
    return count


def _add(session: Session, entries: list[dict[str, Any]]) -> int:
    first = entries[0]
    config, digest = hashed(first["config"])
    name = searchable(first["name"])[:400]
    known = select(RunRow).where(RunRow.name == name, RunRow.config_hash == digest, RunRow.created == first["created"])
    run = session.scalars(known).first()
    if run is None:
        run = RunRow(
            name=name, config=config, config_hash=digest, created=first["created"], finished=True, ended=now()
        )  # fmt: skip
        session.add(run)
        session.flush()
    there = set(session.scalars(select(ChunkRow.key).where(ChunkRow.run_id == run.id)))
    chunks: dict[str, ChunkRow] = {}
    count = 0
    for entry in entries:
        if entry["key"] in there:
            continue
        if entry["key"] not in chunks:
            chunks[entry["key"]] = ChunkRow(run_id=run.id, key=entry["key"], committed=entry["saved"])
            session.add(chunks[entry["key"]])
            session.flush()
        session.add(ResultRow(chunk_id=chunks[entry["key"]].id, **entry["row"]))
        count += 1
    return count


def _result(read: Read, number: int, path: Path) -> Any:
    name = f"The result {number} in {str(path)!r}"
    inside = f"results/{number}"
    document = encoding.parse(read(f"{inside}/{saving.DOCUMENT}"), name)
    return saving.unpack(document, lambda: read(f"{inside}/{saving.TENSORS}"), name)


def _index(read: Read, path: Path) -> list[dict[str, Any]]:
    document: Any = encoding.parse(read(INDEX), f"{INDEX} in {str(path)!r}")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileError(f"{str(path)!r} is no export of a store; give what `export` wrote.")
    schema = document.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise FileError(
            f"{str(path)!r} has the format {schema}, and this version reads up to {SCHEMA}; update pellucid."
        )
    entries = document.get("results")
    if not isinstance(entries, list) or not all(_sound(entry) for entry in entries):
        raise FileError(f"The index of {str(path)!r} is damaged; export again.")
    return entries


def _sound(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and all(type(entry.get(name)) is kind for name, kind in _FIELDS.items())
        and isinstance(entry.get("config"), dict)
        and isinstance(entry.get("tags"), list)
        and all(isinstance(tag, str) for tag in entry["tags"])
        and 0 < len(entry["key"]) <= 400
        and max(len(entry["saved"]), len(entry["created"])) <= 40
        and not UNSTORABLE.search(entry["key"] + entry["saved"] + entry["created"])
        and 0 <= entry["place"] < 1_000_000
    )


def _tensors(folder: Path, row: ResultRow) -> bytes:
    path = tensors_path(folder, row.tensors)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(
            f"The tensors of the result {row.id} cannot be read at {str(path)!r} ({error.strerror}); restore the file."
        ) from error
    if hashlib.sha256(content).hexdigest() != row.tensors:
        raise FileError(f"The tensors of the result {row.id} were cut or changed at {str(path)!r}; restore the file.")
    return content


@contextmanager
def _written(path: Path) -> Iterator[Write]:
    """Yield what writes one file of the export; `path` appears when all are on disk, and not before."""
    if path.suffix.lower() != ".zip":
        with saving.replaced_folder(path) as fresh:

            def write(name: str, content: bytes) -> None:
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                saving.write_synced(fresh / name, content)

            yield write
        return
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".pellucid-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    yield archive.writestr
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def _source(path: Path) -> Generator[Read]:
    """Yield what reads one file of an export by its name, which is never a name that the archive chose."""
    if path.is_dir():
        yield lambda name: _read_file(path / name)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield lambda name: _read_member(archive, name, path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise FileError(f"{str(path)!r} is no zip file or is damaged ({error}); export again.") from error
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read ({error.strerror or error}); check the path.") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read ({error.strerror}); export again.") from error


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        if archive.getinfo(name).file_size > LARGEST:
            raise FileError(f"{name} in {str(path)!r} would need more than {LARGEST} bytes; it is not read.")
        return archive.read(name)
    except KeyError:
        raise FileError(f"{str(path)!r} lacks {name}; export again.") from None
    except (NotImplementedError, RuntimeError, EOFError) as error:  # encrypted, an unknown compression, or cut
        raise FileError(f"{name} in {str(path)!r} cannot be read ({error}); export again.") from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise ResourceError(
                f"The export to {str(path)!r} found no space left ({reason}); free space, nothing was changed."
            ) from error
        raise FileError(f"{str(path)!r} cannot be written ({reason}); choose another path.") from error
