from __future__ import annotations

import math

import numpy as np
import torch

from pellucid.core.jsonable import as_json, parameter
from pellucid.core.results import Evidence, Explanation, Scores
from pellucid.core.targets import Target


def test_parameters_become_json() -> None:
    big = np.arange(100.0)
    assert parameter(Target(3, "x"))["contrast"] == "x"
    assert parameter(torch.tensor([1.0, math.nan], dtype=torch.bfloat16)) == [1.0, None]
    assert parameter(big) == {"shape": [100], "dtype": "float64", "sha256": parameter(big)["sha256"]}
    assert parameter(big)["sha256"] != parameter(big + 1)["sha256"]
    assert parameter(test_parameters_become_json) == "test_parameters_become_json"
    assert "0x" not in str(parameter(lambda: 0))
    assert parameter({"a": (1, np.float32(0.5))}) == {"a": [1, 0.5]}
    assert parameter(Scores(values=np.zeros(2), title="t")) == {"type": "Scores", "method": "", "title": "t"}


def test_a_whole_result_becomes_one_document() -> None:
    scores = Scores(
        values=np.array([[1.0, np.nan]]),
        axes=("layer", "unit"),
        evidence=(Evidence("gap", "small", {"gap": math.inf}),),
    )
    document = as_json(Explanation(results=(scores,), target="\ud800", predictions=((" a", 0.5),)))
    assert document["kind"] == "Explanation"
    assert document["results"][0]["values"] == [[1.0, None]]
    assert document["results"][0]["evidence"][0]["values"] == {"gap": None}
    assert (document["predictions"], document["target"]) == ([[" a", 0.5]], "?")
