"""Subject: one handle on a model, its tokenizer and its layout. A Subject never changes; `with_` makes a view."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import CapabilityError, LayoutError
from pellucid.core.results import Provenance, WeightEdit
from pellucid.core.tokens import Tokens, Units
from pellucid.models import blackbox, inputs, weight_edits, weights
from pellucid.models.edits import Edit
from pellucid.models.layout import Layout, depth, place
from pellucid.models.units import units


@dataclass(eq=False)
class Record:
    """What one call cost: seconds, rows sent forward, rows sent backward."""

    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


@dataclass
class State:
    """What all views of one model share: the lock, the running records and a place for caches."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    local: threading.local = field(default_factory=threading.local)
    cache: dict[Any, Any] = field(default_factory=dict)


class Subject:
    """A model that can be explained: any Hugging Face transformer, or a black box that scores texts.

    Attributes: `name`, `revision`, `model`, `tokenizer`, `layout`, `edits`, `kind` ("decoder", "encoder",
    "encoder-decoder", "black-box"), `head` ("causal-lm", "masked-lm", "classification", "none"), `capabilities`,
    `device`, `dtype`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layout: Layout | None,
        *,
        kind: str,
        head: str,
        name: str,
        revision: str = "",
        edits: tuple[Edit, ...] = (),
        weight_edits: tuple[WeightEdit, ...] = (),
        state: State | None = None,
        function: Callable[[list[str]], Any] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.layout = model, tokenizer, layout
        self.kind, self.head, self.name, self.revision = kind, head, name, revision
        self.edits, self.weight_edits, self.function = edits, weight_edits, function
        self.state = state or State()

    def __repr__(self) -> str:
        """Return name, kind, size and edits."""
        count = len(self.edits) + len(self.weight_edits)
        edits = f", {count} edits" if count else ""
        return f"Subject({self.name!r}, {self.kind}, {self.head}{edits})"

    @property
    def lock(self) -> threading.RLock:
        """Return the lock that every run of this model holds."""
        return self.state.lock

    @property
    def capabilities(self) -> frozenset[str]:
        """Return what this subject can do: scores, logits, gradients, activations, attention, weights, generate."""
        if self.kind == "black-box":
            return frozenset({"scores"})
        found = {"scores", "logits", "gradients", "activations", "attention", "weights"}
        if self.head == "causal-lm":
            found.add("generate")
        return frozenset(found - weights.lacking(self.model))

    @property
    def device(self) -> str:
        """Return the device of the first parameter, or "none" for a black box."""
        return "none" if self.model is None else str(self.input_device)

    @property
    def input_device(self) -> torch.device:
        """Return the device that token ids belong on (the embedding's, also under a device map)."""
        embedding = self.model.get_input_embeddings()
        hook: Any = getattr(embedding, "_hf_hook", None)
        if getattr(hook, "execution_device", None) is not None:
            return torch.device(hook.execution_device)
        weight = getattr(embedding, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.device.type != "meta":
            return weight.device
        devices = [p.device for p in self.model.parameters() if p.device.type != "meta"]
        return devices[0] if devices else torch.device("cpu")

    @property
    def dtype(self) -> str:
        """Return the dtype of most weights, for example "float32"."""
        if self.model is None:
            return "none"
        sizes: dict[str, int] = {}
        for parameter in self.model.parameters():
            name = str(parameter.dtype).removeprefix("torch.")
            sizes[name] = sizes.get(name, 0) + parameter.numel()
        return max(sizes, key=lambda name: sizes[name])

    @property
    def pad_id(self) -> int:
        """Return the token id that fills padded places (masked, so any id does)."""
        for owner in (self.tokenizer, self.model.config):
            pad = getattr(owner, "pad_token_id", None)
            if isinstance(pad, int) and 0 <= pad < self.vocabulary:
                return pad
        return 0

    @property
    def vocabulary(self) -> int:
        """Return the number of token ids the model embeds."""
        embedding = self.model.get_input_embeddings()
        return int(getattr(embedding, "num_embeddings", 0) or embedding.weight.shape[0])

    @property
    def layers(self) -> int:
        """Return the number of blocks of the stack that feeds the output."""
        return depth(self.model, self.need_layout())

    def need_layout(self) -> Layout:
        """Return the layout; raise `LayoutError` for a subject without modules."""
        if self.layout is None:
            raise LayoutError(
                f"{self.name} has no layout because it is a {self.kind}; load a transformers model to reach inside."
            )
        return self.layout

    def with_(self, *edits: Edit | WeightEdit) -> Subject:
        """Return a view of this subject with more edits, applied in the order given; the original is untouched.

        A `WeightEdit` gives the view modules of its own, which share every weight that does not change; it must have
        been made for these weights, or for those before the edits that the view already has.

        Raises:
            SiteError: an edit of a place that the model lacks.
            EditError, CapabilityError: weights that cannot be changed so (see `pellucid.models.weight_edits`).
        """
        changes = tuple(edit for edit in edits if isinstance(edit, WeightEdit))
        places = tuple(edit for edit in edits if not isinstance(edit, WeightEdit))
        for edit in places:
            if edit.site.rsplit(".", 1)[-1] not in ("q_rot", "k_rot", "scores", "pattern"):
                place(self.model, self.need_layout(), parse_site(edit.site))
        if not changes:
            return self._view((*self.edits, *places))
        self.require(("logits",), "An edit of weights")
        view = self._view((*self.edits, *places))
        view.model = weight_edits.edited_model(self, changes)
        view.weight_edits = (*self.weight_edits, *changes)
        # Its own caches, but the lock and the running counts of the model that it shares weights with.
        view.state = State(lock=self.state.lock, local=self.state.local)
        return view

    def without_edits(self) -> Subject:
        """Return a view without edits of activations; changed weights stay, because they are the view's model."""
        return self._view(())

    def _view(self, edits: tuple[Edit, ...]) -> Subject:
        return Subject(
            self.model,
            self.tokenizer,
            self.layout,
            kind=self.kind,
            head=self.head,
            name=self.name,
            revision=self.revision,
            edits=edits,
            weight_edits=self.weight_edits,
            state=self.state,
            function=self.function,
        )

    def encode(self, prompt: Any) -> Tokens:
        """Return the prompt as the model sees it; raise `InputError` for a prompt it cannot take."""
        if self.kind == "black-box":
            return blackbox.encode(self.state.cache.setdefault("pieces", {}), prompt)
        return self.encoded(prompt).tokens

    def encoded(self, prompt: Any) -> inputs.Encoded:
        """Return the prompt as the model sees it, with notes on anything that was changed or could not be placed."""
        return inputs.encode(
            self.tokenizer,
            prompt,
            kind=self.kind,
            max_length=self.max_length,
            vocabulary_size=self.vocabulary,  # type: ignore[arg-type]
        )

    @property
    def max_length(self) -> int | None:
        """Return the longest sequence the model takes, or None where it has no such limit."""
        config = self.model.config
        for name in ("max_position_embeddings", "n_positions"):
            limit = getattr(config, name, None)
            if isinstance(limit, int) and limit > 0:
                return limit - (self.layout.position_start if self.layout else 0)
        return None

    def units(self, tokens: Tokens, unit: Any = "token") -> Units:
        """Return the parts of the prompt that scores are given for."""
        return units(tokens, unit)

    def require(self, needs: Sequence[str], method: str) -> None:
        """Raise `CapabilityError` where this subject lacks something a method needs."""
        missing = [need for need in needs if need not in self.capabilities]
        if missing:
            raise CapabilityError(
                f"{method} needs {' and '.join(missing)}, but {self.name} ({self.kind}, {self.head}) offers only "
                f"{', '.join(sorted(self.capabilities))}; choose a method whose needs are among these."
            )

    @contextmanager
    def recorded(self) -> Iterator[Record]:
        """Count the passes and seconds of the calls made in this context, in this thread."""
        records: list[Record] = self.state.local.__dict__.setdefault("records", [])
        record = Record()
        records.append(record)
        start = time.perf_counter()
        try:
            yield record
        finally:
            record.seconds = time.perf_counter() - start
            records.remove(record)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave the passes made in this context out of all records: those of a check made once per model."""
        records = self.state.local.__dict__.pop("records", [])
        try:
            yield
        finally:
            self.state.local.__dict__["records"] = records

    def count(self, *, forwards: int = 0, backwards: int = 0) -> None:
        """Add passes to every running record of this thread."""
        for record in self.state.local.__dict__.get("records", []):
            record.forwards += forwards
            record.backwards += backwards

    def weights_state(self) -> tuple[Any, ...]:
        """Return what changes when any weight is replaced or changed in place, or an adapter switched."""
        return () if self.model is None else weights.state(self.model)

    def weights_hash(self) -> str:
        """Return a fingerprint of the weights: names, shapes, dtypes and up to 4096 evenly spaced values of each."""
        if self.model is None:
            return ""
        state = self.weights_state()
        cached = self.state.cache.get("weights_hash")
        if cached is None or cached[0] != state:
            found = weights.fingerprint(self.model)  # it samples, so that small edits need their own
            for edit in self.weight_edits:
                found = hashlib.sha256((found + weight_edits.digest(edit)).encode()).hexdigest()[:16]
            cached = (state, found)
            self.state.cache["weights_hash"] = cached
        return str(cached[1])

    def provenance(
        self,
        method: str,
        parameters: dict[str, Any],
        record: Record,
        seed: int | None,
        rows: tuple[str, ...] = (),
        paper: str = "",
    ) -> Provenance:
        """Return how a result came about."""
        return Provenance(
            method=method,
            parameters=parameters,
            model=self.name,
            revision=self.revision,
            weights_hash=self.weights_hash(),
            edits=(*map(weight_edits.describe, self.weight_edits), *(edit.describe() for edit in self.edits)),
            dtype=self.dtype,
            device=self.device,
            seed=seed,
            versions=versions(),
            seconds=record.seconds,
            forwards=record.forwards,
            backwards=record.backwards,
            rows=rows,
            paper=paper,
        )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers."""
    found = {"torch": torch.__version__, "numpy": np.__version__}
    for package in ("pellucid", "transformers", "tokenizers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "source"
    return found
