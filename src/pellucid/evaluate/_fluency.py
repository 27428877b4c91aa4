"""How varied and how on-topic written text is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.core.results import Evidence
from pellucid.engine.continuations import spoken, text_of
from pellucid.evaluate._edits import figures
from pellucid.models.subject import Subject

WEIGHTS = {2: 2 / 3, 3: 4 / 3}


def written(subject: Subject, prompts: Sequence[str], tokens: int, top: int, seed: int) -> list[str]:
    """Return what the subject writes behind each prompt, without the prompt."""
    ids = [subject.encode(prompt).ids for prompt in prompts]
    found = spoken(subject, ids, tokens, top=top, seed=seed)
    return [text_of(subject, prompt, own) for prompt, own in zip(ids, found, strict=True)]


def words_of(text: str) -> list[str]:
    """Return the words and signs of a text, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def entropy_of(text: str) -> float:
    """Return (2/3 H2 + 4/3 H3) / 2 in bits, the entropies of the frequencies of the text's n-grams; 0 without any."""
    words, total = words_of(text), 0.0
    for size, weight in WEIGHTS.items():
        counts = np.array(list(Counter(zip(*(words[i:] for i in range(size)), strict=False)).values()), dtype=float)
        shares = counts / counts.sum() if len(counts) else counts
        total -= weight * float((shares * np.log2(shares)).sum()) / len(WEIGHTS)
    return max(total, 0.0)


def entropies(before: Sequence[str], after: Sequence[str], *, seed: int) -> Evidence:
    """Return the evidence of the n-gram entropy of texts written before and after a change."""
    both = (before, after)
    entropy = tuple(np.array([entropy_of(text) for text in texts]) for texts in both)
    words = tuple(np.array([float(len(words_of(text))) for text in texts]) for texts in both)
    values = figures({"entropy": (entropy[0], entropy[1]), "words": (words[0], words[1])}, "entropy", seed)
    return Evidence(
        "generation entropy",
        f"What the model writes has an n-gram entropy of {values['value']:.2f} bits ({values['low']:.2f} to "
        f"{values['high']:.2f}) in {values['words']:.0f} words and signs on average; before the change "
        f"{values['before']:.2f} bits in {values['words_before']:.0f}.",
        values,
    )


def likeness(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of the tf-idf vectors of each text and its own references, and of the others' references.

    Weights are fitted on all references. A text without any word of theirs has the cosine 0; without other references
    the second is NaN.
    """
    joined = [" ".join(own) for own in references]
    vectors: Any = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(joined)
    found = np.asarray((vectors.transform(texts) @ vectors.transform(joined).T).todense())
    others = np.full(len(texts), np.nan)
    for i, own in enumerate(joined):
        different = [j for j, other in enumerate(joined) if other != own]
        others[i] = found[i, different].mean() if different else np.nan
    return found.diagonal().copy(), others
