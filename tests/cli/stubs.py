"""Stand-ins for the model and for `explain`, so that the command line is tested apart from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from pellucid.core.errors import TargetError
from pellucid.core.results import Evidence, Explanation, Provenance, Scores, Table

# The subject and the wrapped signature are read as text alone, so `Subject` need not be imported.
METHOD = '''
from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores


@method(rows=("FAP-1",), paper="Li 2016", takes="prompt", produces="scores", axes=("unit",), cost="steps*F")
def example(subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token",
            steps: Positive = 4, centred: bool = True, other: PromptLike = "", before: Scores | None = None) -> Scores:
    """Count [the letters]. Slowly.

    Args:
        steps: How often; [steps] many.
    """
    title = f"{prompt}|{target!r}|{unit}|{steps}|{centred}|{other}|{type(before).__name__}"
    return Scores(values=np.array([float(len(prompt))]), title=title)
'''


class Subject:
    """A subject that only knows its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, prompt: Any) -> Any:
        return prompt

    def require(self, needs: Any, method: str) -> None:
        pass

    @contextmanager
    def recorded(self) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(seconds=0.0, forwards=0, backwards=0)

    def provenance(self, **fields: Any) -> Provenance:
        fields.pop("record")
        return Provenance(model=self.name, **fields)


def explanation(subject: Subject, prompt: Any, **parameters: Any) -> Explanation:
    """Give back what was asked, as an explanation."""
    print("a library prints this")
    if prompt == "":
        raise TargetError("The prompt is empty;\nwrite something.")
    scores = Scores(values=np.array([1.0, np.nan]), labels={"unit": ("a", "<b>")}, unit="logit")
    evidence = Evidence("asked", "What was asked.", {"seed": float(parameters["seed"])})
    notes = tuple(f"{key}={value!r}" for key, value in sorted(parameters.items()))
    return Explanation(results=(scores,), target=str(prompt), notes=(subject.name, *notes), evidence=(evidence,))


def checks(subject: Subject) -> Table:
    """Pass one check, and fail one for the model named broken."""
    rows = (("shapes", True, ""), ("readout", subject.name != "broken", "the logits differ"))
    return Table(title="checks", columns=("check", "ok", "seen"), rows=rows)
