"""Answers kept on disk, so that nothing is asked or paid twice."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pellucid.core.errors import FileError
from pellucid.generators.interface import Generator, Reply, Request, answers, collect, digest

FORMAT = 1


class Cached:
    """Wrap a generator with a cache on disk.

    The key is the sha256 of the whole request and the generator's `identity` (its name, where it has none); each
    reply is one JSON file `ab/cd/<key>.json`, written under another name, flushed, and renamed. So a killed run leaves
    only whole files, asks only for what is missing when it runs again, and several processes may share a folder (two
    that ask the same at the same moment both pay). A file that cannot be read, or holds another key, is asked anew and
    rewritten. Equal requests of one call are asked once.

    Raises:
        FileError: If the folder cannot be made or an answer cannot be written.
    """

    def __init__(self, generator: Generator, folder: str | os.PathLike[str]) -> None:
        """Make the folder."""
        self.generator = generator
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"The cache folder {str(folder)!r} cannot be made ({error.strerror}); choose another."
            ) from error

    @property
    def name(self) -> str:
        """Return the name of the wrapped generator."""
        return self.generator.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what tells the wrapped generator apart."""
        return dict(getattr(self.generator, "identity", {"name": self.generator.name}))

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order, from the cache where it has the answer."""
        return collect(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield the cached answers, then the others as they arrive; each is on disk before it is yielded."""
        identity = self.identity
        missing: dict[str, list[int]] = {}
        keys = [{"format": FORMAT, "generator": identity, "request": request.as_json()} for request in requests]
        for index, key in enumerate(keys):
            name = digest(key)
            reply = None if name in missing else self._read(name, key)
            if reply is None:
                missing.setdefault(name, []).append(index)
            else:
                yield index, reply
        places = list(missing.items())
        if not places:
            return
        with closing(answers(self.generator, [requests[indices[0]] for _, indices in places])) as arriving:
            for number, reply in arriving:
                name, (first, *others) = places[number]
                self._write(name, keys[first], reply)
                yield first, reply
                for index in others:
                    yield index, replace(reply, cached=True)

    def path(self, request: Request) -> Path:
        """Return where the answer to a request is, or would be, kept."""
        return self._path(digest({"format": FORMAT, "generator": self.identity, "request": request.as_json()}))

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name[2:4] / f"{name}.json"

    def _read(self, name: str, key: Mapping[str, Any]) -> Reply | None:
        """Return the stored reply, or None where there is none that can be trusted."""
        try:
            entry = json.loads(self._path(name).read_text(encoding="utf-8"))
            # Through JSON and back, so that tuples in the identity compare equal to the lists that were stored.
            if entry["key"] != json.loads(json.dumps(key)):
                return None
            stored = entry["reply"]
            log_probs = stored["choice_log_probs"]
            return Reply(
                texts=tuple(_typed(text, str) for text in _typed(stored["texts"], list)),
                choice_log_probs=None if log_probs is None else tuple(float(value) for value in log_probs),
                finish_reasons=tuple(_typed(reason, str) for reason in _typed(stored["finish_reasons"], list)),
                prompt_tokens=_typed(stored["prompt_tokens"], int),
                completion_tokens=_typed(stored["completion_tokens"], int),
                cost=float(stored["cost"]),
                cached=True,
                how=_typed(stored["how"], str),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, name: str, key: Mapping[str, Any], reply: Reply) -> None:
        """Write one entry so that readers see the whole of it or nothing."""
        path = self._path(name)
        entry = {"key": key, "reply": {field: value for field, value in asdict(reply).items() if field != "cached"}}
        part = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file, ensure_ascii=True)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            raise FileError(
                f"The answer of {self.name} could not be written to {str(self.folder)!r} ({error.strerror}); "
                "make room or choose another folder, the answers written before are kept."
            ) from error


def _typed(value: Any, kind: type) -> Any:
    """Return the value if it has the right type, so that a damaged entry is not believed."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value
