"""What all workers share: the line to the server, the models that they load, and how they tell of errors."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from pellucid.core.errors import PellucidError

SMALL = 5_000_000  # weights; below this a second thread makes a forward slower


class Line:
    """The line to the server: one JSON document per line, from any thread."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def say(self, **message: Any) -> None:
        """Send a message; a server that is gone ends this process."""
        text = json.dumps(message, allow_nan=False)
        with self._lock:
            try:
                self._file.write(text + "\n")
                self._file.flush()
            except OSError:
                os._exit(0)


def sentence(error: BaseException) -> dict[str, str]:
    """Return what is said of an error: its sentence and kind."""
    if isinstance(error, PellucidError):
        return {"error": str(error), "kind": type(error).__name__}
    if isinstance(error, MemoryError):
        return {"error": "The process ran out of memory; shorten the prompt or free memory.", "kind": "ResourceError"}
    text = " ".join(str(error).split())[:300]
    return {"error": f"Unexpected {type(error).__name__}: {text}; please report it.", "kind": "Unexpected"}


def load_models(line: Line, config: Mapping[str, Any]) -> dict[str, Any]:
    """Load the models of the list, tell how each one went, and return them by id: a subject, or why there is none."""
    if not config["models"]:
        return {}
    import torch

    import pellucid
    from pellucid.web.work import described

    _quiet()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # loading proves the layout on a few tokens, where waiting threads only cost
    subjects: dict[str, Any] = {}
    for name, source in config["models"].items():
        try:
            subjects[name] = pellucid.load(source, trust_remote_code=config["trust_remote_code"])
            line.say(model=name, state="ready", **described(subjects[name]))
        except Exception as error:
            subjects[name] = sentence(error)["error"]
            line.say(model=name, state="failed", error=subjects[name])
    live = [subject.model for subject in subjects.values() if not isinstance(subject, str)]
    sizes = [sum(p.numel() for p in model.parameters()) for model in live]
    if max(sizes, default=0) >= SMALL:
        torch.set_num_threads(threads)
    return subjects


def _quiet() -> None:
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    disable_progress_bars()


def messages() -> Iterator[dict[str, Any]]:
    """Yield what the server sends, until it is gone."""
    for text in sys.stdin:
        yield json.loads(text)
