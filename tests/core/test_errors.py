from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.core import errors
from pellucid.core.axes import parse_site
from pellucid.core.errors import FileError, InputError, MissingExtra, PellucidError, SiteError, did_you_mean, optional
from pellucid.core.results import Explanation, Scores
from pellucid.core.tokens import Units

BAD_CALLS: list[tuple[Callable[[], Any], type[PellucidError], str]] = [
    (
        lambda: parse_site("blocks.3.attn.zz"),
        SiteError,
        r"'blocks.3.attn.zz' is unknown \(did you mean 'blocks.3.attn.z'",
    ),
    (lambda: parse_site("resid_pre"), SiteError, "did you mean 'blocks.0.resid_pre'"),
    (lambda: parse_site("blocks.x.mlp.out"), SiteError, "'blocks.x.mlp.out' is unknown"),
    (lambda: parse_site(""), SiteError, "'' is unknown"),
    (lambda: Units("token", ((0, 2), (1, 3))), InputError, r"\(1, 3\) follows position 2; sort them"),
    (lambda: Units("token", ((2, 2),)), InputError, "start < end"),
    (lambda: Scores(values=np.zeros(2), axes=("units",)), InputError, r"the axes \['units'\]"),
    (lambda: Scores(values=np.zeros((2, 2))), InputError, "2 dimensions for the axes"),
    (lambda: Scores(values=np.zeros(2), labels={"unit": ("a",)}), InputError, "1 labels for the axis 'unit' of size 2"),
    (lambda: Explanation()["occlusion"], InputError, "no result of 'occlusion'"),
    (lambda: pellucid.open("no/such/folder"), FileError, "'no/such/folder'"),
    (lambda: pellucid.run("occlusoin", None), InputError, "There is no method 'occlusoin'"),
    (lambda: pellucid.presets("capum"), InputError, "did you mean 'captum'"),
    (
        lambda: optional("absent_package.part", "web", "The page"),
        MissingExtra,
        r'The page needs .* pip install "pellucid\[web\]"',
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_a_bad_call_is_one_sentence_that_says_what_to_do(
    call: Callable[[], Any], kind: type[PellucidError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is kind
    assert text[0].isupper() or text[0] == "'"
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text.rstrip(".")


def test_errors_are_caught_by_their_base_and_by_the_usual_kind() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, PellucidError)]
    drawn = errors.__doc__ or ""
    assert len(kinds) == 13
    assert all(kind.__name__ in drawn for kind in kinds)
    assert issubclass(InputError, ValueError)
    assert issubclass(MissingExtra, ImportError)


def test_the_closest_option_is_offered_or_none() -> None:
    assert did_you_mean("occlusoin", ["occlusion", "saliency"]) == " (did you mean 'occlusion'?)"
    assert did_you_mean("zzz", ["occlusion"]) == ""
    assert did_you_mean("x", []) == ""


def test_optional_returns_what_is_there() -> None:
    assert optional("pathlib", "web", "Paths").Path is Path
