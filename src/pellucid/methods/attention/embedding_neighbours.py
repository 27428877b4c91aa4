"""Embedding neighbours: the tokens of an annotated corpus that the model represents most like one token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, SiteName
from pellucid.core.results import Evidence, Examples
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.models.subject import Subject

AROUND = 4  # tokens shown on either side of a neighbour


@method(
    rows=("ATT-2",),
    paper="arXiv:1910.05276",
    takes="corpus",
    produces="examples",
    needs=("activations",),
    cost="(prompts+1)*F",
)
def embedding_neighbours(
    subject: Subject, corpus: Sequence[Any], *, prompt: PromptLike, position: int = -1,
    annotations: Sequence[Sequence[str]] | None = None, layer: int = -1, site: SiteName = "resid_post",
    head: int | None = None, count: Positive = 10,
) -> Examples:  # fmt: skip
    """Find the tokens of a corpus whose vectors at a site are nearest to that of one token, by cosine similarity.

    What neighbours have in common is what the vector encodes: with `site="attn.z"` and a head, what that head gathered
    there. With annotations (such as parts of speech), the evidence says how much more often each label stands among the
    neighbours than in the corpus. Exact search (Hoover et al. 2020, arXiv:1910.05276).

    Args:
        subject: the model, from `pellucid.load`.
        corpus: texts, chats or token ids to search in.
        prompt: the prompt with the token in question.
        position: of that token; negative ones from the last.
        annotations: a label per token for each item of the corpus.
        layer: the layer; negative ones from the last.
        site: the part of a block, such as "resid_post", "attn.z" or "mlp.out".
        head: a head of the site; None takes all together.
        count: neighbours to return.

    Returns:
        Examples, nearest first: item, position, token, its surroundings and its label; values are cosines.

    Raises:
        InputError: a position, layer or head that is not there, or annotations that do not fit the corpus.
    """
    encoded = [subject.encode(item) for item in corpus]
    labels = _labels(encoded, annotations)
    asked = subject.encode(prompt)
    place = one_of(position, len(asked), "position")
    name = expand(subject, part_name(subject, site))[chosen_layers(subject, layer)[0]]
    wanted = _vectors(subject, asked, name, head)[place]
    pool = [_vectors(subject, tokens, name, head) for tokens in encoded]
    places = [(item, at) for item, tokens in enumerate(encoded) for at in range(len(tokens))]
    if not places:
        raise InputError("The corpus is empty; give at least one text to search in.")
    close = (torch.cat(pool) @ wanted).numpy()
    best = np.argsort(-close, kind="stable")[:count]
    found = [places[i] for i in best]
    result = Examples(
        title=f"Neighbours of {asked.pieces[place]!r} at {name}",
        items=tuple(_item(encoded[item], item, at, labels) for item, at in found),
        values=close[best],
        unit="cosine similarity",
    )
    if not labels:
        return result
    return result.with_evidence(_shares([labels[i][at] for i, at in found], [label for row in labels for label in row]))


def _labels(encoded: Sequence[Tokens], annotations: Sequence[Sequence[str]] | None) -> list[list[str]]:
    if annotations is None:
        return []
    sizes, given = [len(tokens) for tokens in encoded], [len(row) for row in annotations]
    if sizes != given:
        raise InputError(
            f"The annotations have {given} labels per item, but the corpus has {sizes} tokens; give one label per "
            "token."
        )
    return [list(row) for row in annotations]


def _vectors(subject: Subject, tokens: Tokens, name: str, head: int | None) -> torch.Tensor:
    """Return a vector of length 1 for every token: [positions, dimension], float64."""
    values = capture(subject, tokens, [name])[name].double().cpu()
    if head is not None:
        if values.ndim != 3:
            raise InputError(f"The site {name!r} has no heads; use 'attn.z', or leave head out.")
        values = values[:, one_of(head, values.shape[1], "head")]
    return torch.nn.functional.normalize(values.reshape(len(values), -1), dim=-1)


def _item(tokens: Tokens, item: int, at: int, labels: list[list[str]]) -> Mapping[str, Any]:
    before, after = tokens.pieces[max(0, at - AROUND) : at], tokens.pieces[at + 1 : at + 1 + AROUND]
    token = tokens.pieces[at] or f"⟨{tokens.ids[at]}⟩"
    shown = {"item": item, "position": at, "token": token, "text": f"{''.join(before)}[{token}]{''.join(after)}"}
    return {**shown, "label": labels[item][at]} if labels else shown


def _shares(near: list[str], every: list[str]) -> Evidence:
    found, usual = Counter(near), Counter(every)
    label, times = found.most_common(1)[0]
    share, base = times / len(near), usual[label] / len(every)
    return Evidence(
        "labels of the neighbours",
        f"{100 * share:.0f} % of the neighbours are {label!r}, which {100 * base:.0f} % of the corpus is.",
        {name: times / len(near) for name, times in found.items()},
    )
