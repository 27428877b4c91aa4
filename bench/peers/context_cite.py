"""context-cite 0.0.4: sources are given ranges of tokens, the response is the continuation, the batch is searched.

Importing it looks for a sentence splitter on the web, which is not used here.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import nltk
import numpy as np

with patch.object(nltk, "download"):
    import context_cite as package
    from context_cite import utils
    from context_cite.context_partitioner import SimpleContextPartitioner

from bench.jobs import no_gradients
from bench.models import Case, text
from bench.ways import Pair, Setting, Way


class Ranges(SimpleContextPartitioner):
    """Sources that are ranges of tokens."""

    def __init__(self, case: Case) -> None:
        """Take the units of a case."""
        self.ranges = [text(case.ids[start:end]) for start, end in case.sizes.spans]
        super().__init__(" ".join(self.ranges))

    def split_context(self) -> None:
        """Name the parts and what stands before each."""
        self._cache = {"parts": self.ranges, "separators": [" "] * len(self.ranges)}


def _citer(setting: Setting, case: Case, batch: int) -> Any:
    parts, question = Ranges(case), text(case.ids[case.sizes.spans[-1][1] :])
    words = setting.tokenizer
    words.padding_side, words.chat_template = "left", "{{ messages[0]['content'] }}"
    found = package.ContextCiter(
        no_gradients(setting.model), words, parts.context, question, num_ablations=case.sizes.samples,
        batch_size=batch, partitioner=parts, prompt_template="{context} {query}",
    )  # fmt: skip
    found._cache["output"] = f"{parts.context} {question} {text(case.continuation)}"  # else it writes its own
    return found


def context_cite(setting: Setting) -> list[Way]:
    """ContextCiter, its own solver."""

    def run(case: Case, batch: int) -> np.ndarray:
        return np.asarray(_citer(setting, case, batch).get_attributions(verbose=False))

    def both(subject: Any, case: Case) -> Pair:
        from bench.jobs import JOBS
        from pellucid.engine.coalitions import all_coalitions

        every = all_coalitions(case.sizes.units)  # ours takes all where they are so few
        with patch.object(utils, "_create_mask", lambda sources, share, seed: every[seed]):
            theirs = run(case, 1)
        return JOBS["context-cite"].ours(subject, case), theirs

    return [Way("ContextCiter", run, batches=(1, 4, 8), both=both)]
