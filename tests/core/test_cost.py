from __future__ import annotations

from typing import Any

import pytest

from pellucid.core.cost import COUNTS, check_cost, cost_names, evaluate_cost
from pellucid.core.errors import InputError

COSTS = [
    ("steps*(F+B)", {"steps": 32}, (32, 32)),
    ("F", {}, (1, 0)),
    ("0", {}, (0, 0)),
    ("(units + 1)*F + B", {"units": 4}, (5, 1)),
    ("min(2**units, permutations*units)*F", {"units": 3, "permutations": 10}, (8, 0)),
    ("min(2**units, permutations*units)*F", {"units": 9, "permutations": 10}, (90, 0)),
    ("max(1, tokens//4)*F - B*0", {"tokens": 9}, (2, 0)),
    ("2*F/4 + 3*B", {}, (0.5, 3)),
    ("-(-F)", {}, (1, 0)),
    ("exact*units*F + (1-exact)*F", {"exact": True, "units": 7}, (7, 0)),
    ("exact*units*F + (1-exact)*F", {"exact": False, "units": 7}, (1, 0)),
]


ENDLESS = [
    ("min(samples, 2**units)*F+F", {"samples": 100, "units": 5000}, (101, 0)),
    ("max(2*units*(1-exact), exact*2**units)*F", {"exact": False, "units": 5000}, (10_000, 0)),
]


@pytest.mark.parametrize(("expression", "counts", "by_hand"), ENDLESS)
def test_a_bound_that_is_not_reached_may_be_endless(
    expression: str, counts: dict[str, Any], by_hand: tuple[float, float]
) -> None:
    assert evaluate_cost(expression, counts) == by_hand
    with pytest.raises(InputError, match="too large"):
        evaluate_cost("2**units*F", counts)


@pytest.mark.parametrize(("expression", "counts", "by_hand"), COSTS)
def test_costs_against_values_by_hand(expression: str, counts: dict[str, float], by_hand: tuple[float, float]) -> None:
    assert evaluate_cost(expression, counts) == by_hand


BAD_COSTS = [
    ("steps*(F+B", {"steps": 2}, "is not an arithmetic expression"),
    ("", {}, "is not an arithmetic expression"),
    ("steps*F", {"step": 2}, "needs the count 'steps', but only .*did you mean 'step'"),
    ("F*B", {}, r"holds 'F \* B'"),
    ("1/F", {}, "holds '1 / F'"),
    ("F**2", {}, r"holds 'F \*\* 2'"),
    ("min(F, 2)", {}, "holds 'min"),
    ("__import__('os').system('true')*F", {}, "holds "),
    ("units", {"units": 3}, "holds 3 that is neither F nor B"),
    ("F/units", {"units": 0}, "divides by zero"),
    ("9**9**9*F", {}, "too large"),
    ("F - 2*F", {}, "comes out negative"),
    ("steps*F", {"steps": None}, "needs a number for 'steps', but got None"),
    ("[F]", {}, "only numbers, names"),
]


@pytest.mark.parametrize(("expression", "counts", "message"), BAD_COSTS)
def test_bad_costs_are_refused(expression: str, counts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_cost(expression, counts)


def test_a_cost_may_name_parameters_and_known_counts_alone() -> None:
    assert cost_names("min(units, steps)*(F+B)") == {"units", "steps"}
    check_cost("units*F", ())
    check_cost("", ())
    with pytest.raises(InputError, match=r"names 'unit', which is neither .*did you mean 'units'"):
        check_cost("unit*F", ("steps",))
    with pytest.raises(InputError, match="only numbers, names"):
        check_cost("units.real*F", ())
    assert "F" not in COUNTS
    assert "B" not in COUNTS
