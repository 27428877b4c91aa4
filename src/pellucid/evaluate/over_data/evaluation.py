"""The answer of a run over a data set, with its page and its figure."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pellucid.core.saving import write_text
from pellucid.evaluate.over_data import report
from pellucid.evaluate.over_data.findings import Findings


@dataclass(frozen=True)
class Evaluation(Findings):
    """Methods judged by metrics over examples; made by `evaluate_dataset`."""

    def html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained page with tables, figure, tests, best and worst examples; write it to `path`."""
        page = report.page(self)
        if path is not None:
            write_text(path, page)
        return page

    def figure(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the means with their intervals as one SVG drawing; write it to `path`."""
        drawn = report.figure(self)
        if path is not None:
            write_text(path, drawn)
        return drawn
