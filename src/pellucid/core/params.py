"""The closed list of parameter types of methods, and what follows from them: checks, forms, command-line options.

A method annotates its parameters with the names of `NAMES` alone. So one description of a parameter serves the check
at the call, the option of `pellucid run`, the field of a web form and the page in the manual, and all of them can be
read from the source text without importing the method.
"""

from __future__ import annotations

import ast
import json
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, cast, runtime_checkable

from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.results import KINDS, Result
from pellucid.core.targets import Kind, Measure, Target


@runtime_checkable
class Array(Protocol):
    """A NumPy array or a torch tensor."""

    @property
    def shape(self) -> Any:
        """Return the sizes of the dimensions."""
        ...

    @property
    def dtype(self) -> Any:
        """Return the type of the entries."""
        ...


@dataclass(frozen=True)
class Bounds:
    """Limits of a number, to stand in `Annotated`; `above` leaves `low` itself out."""

    low: float | int | None = None
    high: float | int | None = None
    above: bool = False

    def hold(self, value: Any) -> bool:
        """Say whether `value` lies within the limits."""
        under = self.low is not None and (value <= self.low if self.above else value < self.low)
        return not under and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """Return the limits in words, to follow "a number"."""
        if self.low is None and self.high is None:
            return ""
        if self.low is not None and self.high is not None and not self.above:
            return f" from {self.low:g} to {self.high:g}"
        low = "" if self.low is None else f" {'above' if self.above else 'of at least'} {self.low:g}"
        return low + ("" if self.high is None else f"{' and' if low else ' of'} at most {self.high:g}")


def at_least(low: float | int) -> Bounds:
    """Return the limits low <= value."""
    return Bounds(low)


def above(low: float | int) -> Bounds:
    """Return the limits low < value."""
    return Bounds(low, above=True)


def between(low: float | int, high: float | int) -> Bounds:
    """Return the limits low <= value <= high."""
    return Bounds(low, high)


@dataclass(frozen=True)
class Named:
    """A class known by its name alone, so that checking does not import it; a protocol also by its `members`."""

    name: str
    members: tuple[str, ...] = ()


Unit = Literal["token", "word", "sentence", "line", "message", "token+special"] | Sequence[tuple[int, int]]
Reduce = Literal["sum", "mean", "l1", "l2", "abs_sum", "abs_mean"]
Normalise = Literal["none", "sum", "l1", "l2", "max_abs"]
Quadrature = Literal["gauss_legendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid"]
Baseline = Literal["zero", "mean", "mask", "pad"] | int | Array
Replacement = Literal["delete", "mask", "pad", "mean", "zero"] | int
TargetLike = Target | int | str | Sequence[int] | Callable[..., Any] | None
PromptLike = str | Sequence[Any] | Array
SiteName = str
Positive = Annotated[int, at_least(1)]
Count = Annotated[int, at_least(0)]
PositiveFloat = Annotated[float, above(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
Fraction = Annotated[float, between(0, 1)]

OBJECTS = ("Subject", "Pair", "Edit", "Fact", "Units", "Tokens", "Generator", "Result", "Evidence", *KINDS)
NAMES: dict[str, Any] = {
    "Unit": Unit, "Reduce": Reduce, "Normalise": Normalise, "Quadrature": Quadrature, "Baseline": Baseline,
    "Replacement": Replacement, "TargetLike": TargetLike, "PromptLike": PromptLike, "SiteName": SiteName,
    "Positive": Positive, "Count": Count, "PositiveFloat": PositiveFloat, "NonNegativeFloat": NonNegativeFloat,
    "Fraction": Fraction, "Measure": Measure, "Target": Target, "Array": Array, "Tensor": Array, "torch.Tensor": Array,
    "np.ndarray": Array, "int": int, "float": float, "bool": bool, "str": str, "None": None, "Any": Any, "object": Any,
    "list": list, "tuple": tuple, "dict": dict, "set": set, "Sequence": Sequence, "Mapping": Mapping,
    "Callable": Callable, "Literal": Literal, "Annotated": Annotated, "TargetKind": Kind,
    **{name: Named(name) for name in OBJECTS}, "Generator": Named("Generator", ("name", "generate")),
}  # fmt: skip
_IDS = re.compile(r"id:(\d+(?:,\d+)*)")
LIMITS: dict[str, Callable[..., Bounds]] = {"at_least": at_least, "above": above, "between": between, "Bounds": Bounds}


def resolve(annotation: Any, aliases: Mapping[str, Any] | None = None) -> Any:
    """Return the type that an annotation (text or object) stands for.

    Names are looked up in `NAMES`, then in `aliases`, which maps further names to types or to their source text.
    Raises `LookupError` with the first unknown name.
    """
    if not isinstance(annotation, str):
        return annotation
    try:
        node = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        raise LookupError(annotation) from None
    return _resolve(node, aliases or {})


def _resolve(node: ast.expr, aliases: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return resolve(node.value, aliases) if isinstance(node.value, str) else node.value
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        if name in NAMES:
            return NAMES[name]
        return resolve(aliases[name], aliases)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (_resolve(node.left, aliases), _resolve(node.right, aliases))
        return _union(sides)
    if not isinstance(node, ast.Subscript):
        raise LookupError(ast.unparse(node))
    base = _resolve(node.value, aliases)
    parts = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base is Literal:
        return Literal[tuple(ast.literal_eval(part) for part in parts)]  # type: ignore[misc]
    if base is Annotated:
        return cast("Any", Annotated)[(_resolve(parts[0], aliases), *(_limits(part) for part in parts[1:]))]
    if base is Callable or isinstance(base, Named) or base is Array:
        return base
    return base[tuple(_resolve(part, aliases) for part in parts)]


def _union(members: Sequence[Any]) -> Any:
    """Join types; `Union` takes no `Named`, so those stand in a tuple of members."""
    flat = [m for member in members for m in _members(member)]
    if any(isinstance(member, Named) for member in flat):
        return tuple(flat)
    return Union[tuple(flat)]  # noqa: UP007 - the members are known at run time only


def _limits(node: ast.expr) -> Bounds:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LIMITS:
        named = {word.arg or "": ast.literal_eval(word.value) for word in node.keywords}
        return LIMITS[node.func.id](*(ast.literal_eval(argument) for argument in node.args), **named)
    raise LookupError(ast.unparse(node))


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if isinstance(annotation, tuple):
        return cast("tuple[Any, ...]", annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for member in typing.get_args(annotation) for m in _members(member))
    return (annotation,)


def _limited(annotation: Any) -> tuple[Any, Bounds]:
    """Split `Annotated[type, bounds]`."""
    if typing.get_origin(annotation) is Annotated:
        base, *extra = typing.get_args(annotation)
        return base, next((e for e in extra if isinstance(e, Bounds)), Bounds())
    return annotation, Bounds()


def fits(value: Any, annotation: Any) -> bool:
    """Say whether a value is what the annotation asks for (bool is not a number here, and NaN is none)."""
    members = _members(annotation)
    if len(members) > 1:
        return any(fits(value, member) for member in members)
    base, bounds = _limited(annotation)
    origin = typing.get_origin(base) or base
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in typing.get_args(base))
    if base is None or base is type(None):
        return value is None
    if isinstance(base, Named):
        by_members = bool(base.members) and all(hasattr(value, member) for member in base.members)
        return by_members or any(kind.__name__ == base.name for kind in type(value).__mro__)
    if base in (int, float):
        kind = numbers.Integral if base is int else numbers.Real
        return _is_number(value, kind) and not math.isnan(value) and bounds.hold(value)
    if base is bool:
        return type(value).__name__ in ("bool", "bool_")
    if base is Any:
        return True
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if origin in (Sequence, list, tuple, set):
        return _fits_sequence(value, typing.get_args(base))
    return isinstance(value, origin) if isinstance(origin, type) else True


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _fits_sequence(value: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, str | bytes | Mapping) or not (hasattr(value, "__len__") and hasattr(value, "__iter__")):
        return False
    if not inner or not isinstance(value, list | tuple):
        return True
    items = cast("Sequence[Any]", value)
    first, *rest = inner
    if rest and rest[-1] is not Ellipsis:
        return len(items) == len(inner) and all(fits(v, a) for v, a in zip(items, inner, strict=True))
    return all(fits(item, first) for item in items)


def words(annotation: Any) -> str:
    """Say in words what an annotation asks for."""
    parts = [_words(member) for member in _members(annotation)]
    return " or ".join(dict.fromkeys(parts))


def _words(annotation: Any) -> str:
    base, bounds = _limited(annotation)
    origin = typing.get_origin(base) or base
    if origin is Literal:
        return ", ".join(repr(option) for option in typing.get_args(base))
    if isinstance(base, Named):
        return f"a {base.name}"
    inner = typing.get_args(base)
    if origin in (Sequence, list, tuple, set):
        if base == Sequence[tuple[int, int]]:
            return "a list of (start, end) token ranges"
        if origin is tuple and len(inner) > 1 and inner[-1] is not Ellipsis:
            return f"({', '.join(words(part) for part in inner)})"
        return "a list" + (f" of {words(inner[0])}" if inner else "")
    plain: dict[Any, str] = {
        int: f"a whole number{bounds}", float: f"a number{bounds}", bool: "True or False", str: "a text", None: "None",
        type(None): "None", Array: "an array or tensor", Callable: "a function", Mapping: "a mapping",
        dict: "a mapping", Target: "a Target", Any: "anything",
    }  # fmt: skip
    return plain.get(origin, getattr(origin, "__name__", str(origin)))


def check(name: str, parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check bound arguments against resolved annotations; raise `InputError` naming what was given and what is allowed.

    Args:
        name: The method's name, for the sentence.
        parameters: The resolved annotation per parameter; parameters without one are not checked.
        arguments: The value per parameter.
    """
    for key, value in arguments.items():
        if key not in parameters or fits(value, parameters[key]):
            continue
        hint = did_you_mean(value, choices(parameters[key])) if isinstance(value, str) else ""
        raise InputError(f"{name} got {key}={shown(value)}, but {key} must be {words(parameters[key])}{hint}.")


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return the literal values that an annotation names."""
    members = [member for member in _members(annotation) if typing.get_origin(member) is Literal]
    return tuple(option for member in members for option in typing.get_args(member))


def shown(value: Any) -> str:
    """Return a value as an error message shows it: on one line and short."""
    if isinstance(value, Array):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, Result):
        return f"a {type(value).__name__}"
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."


def describe(annotation: Any) -> dict[str, Any]:
    """Describe an annotation for forms and the command line.

    Returns a dict with `kind` ("choice", "int", "float", "bool", "text", "list", "mapping", "array", "function",
    "target", the name of a class, or "any"), `choices`, `min`, `max` (numbers or None), `nullable`, `also` (further
    kinds) and `words`.
    """
    members = [member for member in _members(annotation) if member not in (None, type(None))]
    options = choices(annotation)
    kinds = [_kind(member) for member in members if typing.get_origin(member) is not Literal]
    limits = [_limited(member)[1] for member in members]
    bounds = next((b for b in limits if b != Bounds()), Bounds())
    return {
        "kind": "choice" if options else "target" if "target" in kinds else kinds[0] if kinds else "any",
        "choices": list(options),
        "min": bounds.low,
        "max": bounds.high,
        "nullable": len(members) < len(_members(annotation)),
        "also": kinds if options else kinds[1:],
        "words": words(annotation),
    }


def _kind(annotation: Any) -> str:
    base, _ = _limited(annotation)
    origin = typing.get_origin(base) or base
    if isinstance(base, Named):
        return base.name
    known: dict[Any, str] = {
        int: "int", float: "float", bool: "bool", str: "text", Array: "array", Target: "target", Callable: "function",
        Mapping: "mapping", dict: "mapping", Sequence: "list", list: "list", tuple: "list", set: "list", Any: "any",
    }  # fmt: skip
    return known.get(origin, getattr(origin, "__name__", "any"))


def parse_text(text: str, annotation: Any) -> Any:
    """Turn the text of an option into the value that the annotation asks for; what does not parse stays text.

    Where both text and a whole number are allowed, digits stay text and `id:5` is the number (`id:5,7` a list of them).
    Lists and mappings are JSON; a list may also be written `1,2,3`.
    """
    members = _members(annotation)
    kinds = {_kind(member) for member in members if member is not None}
    for option in choices(annotation):
        if str(option) == text:
            return option
    if type(None) in members and text.lower() == "none":
        return None
    if "text" in kinds:
        ids = _IDS.fullmatch(text)
        found = [int(part) for part in ids[1].split(",")] if ids and "int" in kinds else []
        return text if not found else found[0] if len(found) == 1 else found
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = [_plain(part.strip()) for part in text.split(",")] if "list" in kinds and "," in text else text
    if "list" in kinds and not choices(annotation) and not isinstance(value, list | dict):
        value = [value]
    return [_tupled(item) for item in cast("list[Any]", value)] if isinstance(value, list) else cast("Any", value)


def _tupled(item: Any) -> Any:
    """Return a (start, end) range that JSON could only give as a list."""
    return tuple(cast("list[Any]", item)) if isinstance(item, list) else item


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
