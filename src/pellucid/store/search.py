"""Find saved results by what they are and by what people wrote on them, without opening them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from pellucid.core import encoding
from pellucid.core.errors import InputError
from pellucid.store.records import joined, searchable, split
from pellucid.store.schema import ChunkRow, ResultRow, RunRow, written

LONGEST_NOTE, LONGEST_TAG, MOST_TAGS = 100_000, 100, 100


@dataclass(frozen=True)
class Saved:
    """What the store knows about a result without opening it; `Store.get(number)` opens it.

    `run` is the number of its run, `name` the run's name, `key` its place there, `text` the title and the prompt,
    `saved` the time as ISO text in UTC.
    """

    number: int
    run: int
    name: str
    key: str
    kind: str
    methods: tuple[str, ...]
    model: str
    text: str
    saved: str
    note: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]


def rows(
    *columns: Any,
    method: str | None = None,
    model: str | None = None,
    text: str | None = None,
    run: str | None = None,
    tag: str | None = None,
    note: str | None = None,
    annotated: bool | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> Select[*tuple[Any, ...]]:
    """Return the selection of `columns` of the results that fit all that is given, without an order."""
    wanted: Select[*tuple[Any, ...]] = (
        select(*columns)
        .select_from(ResultRow)
        .join(ChunkRow, ChunkRow.id == ResultRow.chunk_id)
        .join(RunRow, RunRow.id == ChunkRow.run_id)
    )
    if method is not None:
        wanted = wanted.where(ResultRow.methods.contains(f"|{searchable(method)}|", autoescape=True))
    if model is not None:
        wanted = wanted.where(ResultRow.model == searchable(model))
    if text is not None:
        wanted = wanted.where(ResultRow.text.icontains(searchable(text), autoescape=True))
    if run is not None:
        wanted = wanted.where(RunRow.name == searchable(run))
    if tag is not None:
        wanted = wanted.where(ResultRow.tags.contains(f"|{searchable(tag)}|", autoescape=True))
    if note is not None:
        wanted = wanted.where(ResultRow.note.icontains(searchable(note), autoescape=True))
    if annotated is not None:
        written_on = or_(ResultRow.note != "", ResultRow.tags != "|")
        wanted = wanted.where(written_on if annotated else ~written_on)
    if since is not None:
        wanted = wanted.where(ChunkRow.committed >= moment(since))
    if until is not None:
        wanted = wanted.where(ChunkRow.committed < moment(until))
    return wanted


def page(session: Session, limit: int, before: int | None, **wanted: Any) -> list[Saved]:
    """Return up to `limit` saved results, newest first, older than the one of number `before`."""
    if not 1 <= limit <= 10_000:
        raise InputError(f"A search got limit={limit}; give 1 to 10000 results a page.")
    row = ResultRow
    columns = (
        row.id, RunRow.id, RunRow.name, ChunkRow.key, row.kind, row.methods, row.model, row.text, ChunkRow.committed,
        row.note, row.tags, RunRow.config,
    )  # fmt: skip
    chosen = rows(*columns, **wanted).order_by(row.id.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(row.id < before)
    return [
        Saved(
            number, run, name, key, kind, split(methods), model, text, saved, note, split(tags),
            encoding.parse(config, f"The configuration of the run {name!r}"),
        )
        for number, run, name, key, kind, methods, model, text, saved, note, tags, config in session.execute(chosen)
    ]  # fmt: skip


def annotate(session: Session, number: int, note: str | None, add: Iterable[str], remove: Iterable[str]) -> None:
    """Change the note and the tags of a result; raise `InputError` if there is none, or for what is too long."""
    row = session.scalars(select(ResultRow).where(ResultRow.id == number).with_for_update()).first()
    if row is None:
        raise InputError(f"No result {number} is in the store; search for those that are.")
    added, gone = [*add], {searchable(tag).strip() for tag in remove}
    for tag in added:
        if not tag.strip() or "|" in tag or len(tag) > LONGEST_TAG:
            raise InputError(f"The tag {tag[:50]!r} cannot be kept; give 1 to {LONGEST_TAG} characters without a bar.")
    tags = [tag for tag in (*split(row.tags), *(searchable(tag).strip() for tag in added)) if tag not in gone]
    if len(set(tags)) > MOST_TAGS:
        raise InputError(f"The result {number} would have {len(set(tags))} tags; keep at most {MOST_TAGS}.")
    if note is not None and len(note) > LONGEST_NOTE:
        raise InputError(f"The note has {len(note)} characters; write at most {LONGEST_NOTE}.")
    row.tags = joined(tags)
    if note is not None:
        row.note = searchable(note)


def moment(given: datetime | str) -> str:
    """Return a moment, or its ISO text such as "2026-11-01", as the tables keep it; without a zone it is local time."""
    try:
        return written(given if isinstance(given, datetime) else datetime.fromisoformat(given))
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"A date was given as {given!r} ({error}); write it as 2026-11-01 or 2026-11-01T12:30."
        ) from None
