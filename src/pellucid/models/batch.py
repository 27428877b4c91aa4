"""Rows of token ids, and the padded batch that the native forward is given."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Row:
    """One input: token ids, the decoder's ids for encoder-decoders, segment ids of a text pair, and its own edits.

    `prompt_length` is where the prompt ends (negative edit positions count from there; default: all of `ids`).
    """

    ids: tuple[int, ...]
    decoder_ids: tuple[int, ...] = ()
    segment: tuple[int, ...] = ()
    edits: tuple[Edit, ...] = ()
    prompt_length: int | None = None


class Batch:
    """Rows padded to tensors, and the arguments of the native forward."""

    def __init__(self, subject: Subject, rows: Sequence[Row], padding: str) -> None:
        self.rows = rows
        self.lengths = [len(row.ids) for row in rows]
        self.decoder_lengths = [len(row.decoder_ids) for row in rows]
        longest = max(self.lengths)
        self.offsets = [longest - n if padding == "left" else 0 for n in self.lengths]
        pad = subject.pad_id
        device = subject.input_device
        ids = torch.full((len(rows), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        positions = torch.zeros_like(ids)
        segment = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            span = slice(self.offsets[i], self.offsets[i] + self.lengths[i])
            ids[i, span], mask[i, span] = torch.tensor(row.ids), 1
            positions[i, span] = torch.arange(self.lengths[i])
            if row.segment:
                segment[i, span] = torch.tensor(row.segment)
        self.inputs: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        names = accepted(type(subject.model))
        layout = subject.layout
        if "position_ids" in names and layout is not None and layout.position_ids and subject.kind != "encoder-decoder":
            self.inputs["position_ids"] = (positions + layout.position_start).to(device)
        if "token_type_ids" in names and any(row.segment for row in rows):
            self.inputs["token_type_ids"] = segment.to(device)
        if "use_cache" in names:
            self.inputs["use_cache"] = False
        if not getattr(subject.model.config, "return_dict", True):
            self.inputs["return_dict"] = True
        if subject.kind == "encoder-decoder":
            width = max(self.decoder_lengths)
            decoder = torch.full((len(rows), width), pad, dtype=torch.long)
            decoder_mask = torch.zeros_like(decoder)
            for i, row in enumerate(rows):
                decoder[i, : len(row.decoder_ids)] = torch.tensor(row.decoder_ids)
                decoder_mask[i, : len(row.decoder_ids)] = 1
            self.inputs["decoder_input_ids"] = decoder.to(device)
            self.inputs["decoder_attention_mask"] = decoder_mask.to(device)


_signatures: dict[type, frozenset[str]] = {}


def accepted(model_type: type) -> frozenset[str]:
    """Return the names of the arguments that a model class takes."""
    if model_type not in _signatures:
        _signatures[model_type] = frozenset(inspect.signature(model_type.forward).parameters)  # type: ignore[attr-defined]
    return _signatures[model_type]


class evaluating:
    """Hold a model in evaluation mode and give every module its own mode back."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.training = [module for module in self.model.modules() if module.training]
        if self.training:
            self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True
