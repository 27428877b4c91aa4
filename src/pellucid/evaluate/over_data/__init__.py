"""Several methods judged by several metrics over a data set, in one resumable run."""

from __future__ import annotations

from pellucid.evaluate.over_data.evaluation import Evaluation
from pellucid.evaluate.over_data.examples import COLUMNS, Example, read_examples
from pellucid.evaluate.over_data.run import evaluate_dataset

__all__ = ["COLUMNS", "Evaluation", "Example", "evaluate_dataset", "read_examples"]
