"""Explain every item of a data set, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pellucid.core import encoding
from pellucid.core.errors import InputError
from pellucid.core.results import Result
from pellucid.store.runs import Run
from pellucid.store.store import Store

_FINGERPRINT = "items (sha256)"


def map_dataset(
    store: Store,
    name: str,
    config: Mapping[str, Any],
    items: Sequence[Any] | Mapping[str, Any],
    explain: Callable[[Any], Any],
    *,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Explain every item and keep each result as soon as it is there; call again after any interruption to go on.

    A run killed at any moment loses nothing that was saved, and computes nothing twice but what was in flight. It is
    known by `name`, `config` and the items themselves: other items are another run. Keys are the numbers of the items
    ("00000000", ...), or the keys of a mapping.

    Args:
        store: where results go.
        name: the name of the run.
        config: plain values that decide the results, such as method, model and parameters.
        items: prompts or other plain values (text, numbers, lists, mappings), or a mapping from keys to any items.
        explain: called with one item, returns its result or results; with `batch` > 1 called with a list of items,
            returns a list with one result, or sequence of results, per item.
        batch: how many items are computed and saved at once.
        progress: called with (items done, all items) at the start and after each batch.

    Returns:
        The run, finished; `run.results()` goes through its results.

    Raises:
        InputError: for items that are no plain values, or a list of results that does not fit the batch.
    """
    if batch < 1:
        raise InputError(f"map_dataset got batch={batch}; give at least 1.")
    keyed = dict(items) if isinstance(items, Mapping) else {f"{i:08d}": item for i, item in enumerate(items)}
    run = store.run(name, {**config, _FINGERPRINT: _fingerprint(items, keyed)})
    pending = run.pending(keyed)
    done = len(keyed) - len(pending)
    if progress is not None:
        progress(done, len(keyed))
    for start in range(0, len(pending), batch):
        keys = pending[start : start + batch]
        if batch == 1:
            run.save(keys[0], _results(explain(keyed[keys[0]])))
        else:
            computed = list(explain([keyed[key] for key in keys]))
            if len(computed) != len(keys):
                raise InputError(
                    f"explain returned {len(computed)} results for a batch of {len(keys)} items; return one per item."
                )
            run.save_all({key: _results(value) for key, value in zip(keys, computed, strict=True)})
        done += len(keys)
        if progress is not None:
            progress(done, len(keyed))
    run.finish()
    store.tidy()
    return run


def _results(value: Any) -> Sequence[Result]:
    several = [value] if isinstance(value, Result) else list(value) if isinstance(value, list | tuple) else [value]
    wrong = next((v for v in several if not isinstance(v, Result)), None)
    if wrong is not None or not several:
        raise InputError(
            f"explain returned {type(wrong if several else value).__name__}; return a Result, or several, per item."
        )
    return several


def _fingerprint(items: Sequence[Any] | Mapping[str, Any], keyed: Mapping[str, Any]) -> str:
    """Return a hash of the items, or of the keys of a mapping, whose values may be anything."""
    document = encoding.dump(encoding.encode_value(list(keyed) if isinstance(items, Mapping) else list(keyed.values())))
    if '{"$repr":' in document:
        raise InputError(
            "The items hold values that are no plain data, so a later call could not know them again; give a mapping "
            "from keys to items."
        )
    return hashlib.sha256(document.encode()).hexdigest()
