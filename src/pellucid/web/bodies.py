"""What requests carry: checked by pydantic, documented with examples."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

CAPITAL = "The capital of France is"
LONGEST_TEXT = 1_000_000
DEEPEST = 32
EMPTY = ("edits", "models", "parameters", "preset", "watch")


def finite(value: Any) -> Any:
    """Refuse numbers that JSON lacks and values nested too deeply."""
    todo: list[tuple[Any, int]] = [(value, 0)]
    while todo:
        item, depth = todo.pop()
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} deep")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError("holds NaN or an infinity, which JSON lacks")
        if isinstance(item, dict):
            todo += [(inner, depth + 1) for inner in (*item, *item.values())]
        elif isinstance(item, list):
            todo += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
            raise ValueError("holds half of a surrogate pair, which is no character")
        elif isinstance(item, int) and abs(item) >= 1 << 63:
            raise ValueError("holds a whole number of more than 64 bits")
    return value


Json = Annotated[Any, AfterValidator(finite)]
Characters = Annotated[str, Field(max_length=LONGEST_TEXT)]


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a misspelt one is not silently dropped."""

    model_config = ConfigDict(extra="forbid")


class Message(Body):
    """One message of a chat."""

    role: Annotated[str, Field(min_length=1, max_length=100, examples=["user"])]
    content: Characters


Prompt = Annotated[Characters | list[Message], Field(examples=[CAPITAL, [{"role": "user", "content": "Hello"}]])]


class Source(Body):
    """Another prompt, whose activations an edit takes."""

    prompt: Prompt


class Edit(Body):
    """Replace an activation: where, and how; see the guide "Edit a model".

    `from` gives the prompt whose own value at the site is put in (with `how` "patch_from").
    """

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={"examples": [{"site": "blocks.1.attn.z", "how": "zero", "where": {"head": 0}}]},
    )

    site: Annotated[str, Field(max_length=100, examples=["blocks.1.attn.z"])]
    how: Literal["set", "add", "scale", "zero", "mean", "resample", "project", "patch_from"] = "zero"
    value: Json = None
    where: Annotated[
        dict[Annotated[str, Field(max_length=20)], Annotated[int, Field(strict=True)] | list[int]],
        Field(max_length=6, examples=[{"head": 0}]),
    ] = Field(default_factory=dict)
    phase: Literal["all", "prompt", "generation"] = "all"
    source: Source | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _checked(self) -> Edit:
        if (self.source is not None) != (self.how == "patch_from"):
            raise ValueError("'from' belongs to how='patch_from', and that to 'from'; give both or neither")
        if abs(self._largest()) >= 1 << 31:
            raise ValueError("an index in 'where' is too large")
        return self

    def _largest(self) -> int:
        indices = [i for value in self.where.values() for i in (value if isinstance(value, list) else [value])]
        return max(indices, key=abs, default=0)


Edits = Annotated[list[Edit], Field(max_length=64)]


class TokensBody(Body):
    """A prompt to be read by a model."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"prompt": CAPITAL, "top": 5}]})

    prompt: Prompt
    edits: Edits = Field(default_factory=list)
    top: Annotated[int, Field(ge=1, le=100)] = 10
    positions: Literal["last", "all"] = "last"
    watch: Annotated[
        list[Annotated[int, Field(ge=0, lt=1 << 31)] | Annotated[str, Field(max_length=1000)]],
        Field(max_length=100, description="Token ids or texts whose probability is told, too."),
    ] = Field(default_factory=list)


class PairBody(Body):
    """Two prompts to be compared: a clean and a corrupt one."""

    clean: Prompt
    corrupt: Prompt
    alignment: Annotated[list[tuple[int, int]], Field(max_length=100_000)] | None = None


class TargetBody(Body):
    """What is explained, where a token, text or class does not say it all; see the guide "Say what to explain"."""

    what: int | Characters | list[int] | None = None
    contrast: int | Characters | list[int] | None = None
    measure: Literal["auto", "logit", "log_prob", "prob", "entropy"] = "auto"
    kind: Literal["auto", "next", "continuation", "generated", "class", "similarity"] = "auto"
    each: bool = False
    length: Annotated[int, Field(ge=0, le=10_000)] = 0


What = int | Characters | list[int]


class JobBody(Body):
    """A question that is answered in the background: a method, a metric, a study, or "explain"."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"model": "zoo-tiny-lm", "method": "explain", "prompt": CAPITAL},
                {
                    "model": "zoo-tiny-lm", "method": "integrated_gradients", "prompt": CAPITAL, "target": " Paris",
                    "contrast": " London", "parameters": {"steps": 16},
                },
                {
                    "model": "zoo-tiny-lm", "method": "activation_patching",
                    "pair": {"clean": CAPITAL, "corrupt": "The capital of Italy is"}, "target": " Paris",
                },
            ]
        },
    )  # fmt: skip

    model: Annotated[str, Field(max_length=200, description="The id of a model.")]
    method: Annotated[str, Field(max_length=100, description='The name of a method, metric or study, or "explain".')]
    prompt: Prompt | None = None
    pair: PairBody | None = None
    input: Json = Field(default=None, description="What a method takes that is neither a prompt nor a pair.")
    models: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=16)] = Field(
        default_factory=list, description="The ids of the models that a method compares."
    )
    target: What | TargetBody | None = None
    contrast: What | None = None
    parameters: dict[Annotated[str, Field(max_length=100)], Json] = Field(
        default_factory=dict,
        description='The parameters of the method by name; a saved result is given as {"result": "12"}, a part of an '
        'explanation as {"result": "12", "part": 0}.',
    )
    edits: Edits = Field(default_factory=list)
    preset: Annotated[str, Field(max_length=100, description="The conventions of another toolkit.")] = ""
    budget: Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False, description="Seconds.")] | None = None

    @model_validator(mode="after")
    def _checked(self) -> JobBody:
        if sum(value is not None for value in (self.prompt, self.pair, self.input)) > 1:
            raise ValueError("'prompt', 'pair' and 'input' exclude each other; give the one that the method takes")
        return self


class RunChange(Body):
    """What people write on a result; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "odd", "tags": ["ioi"]}]})

    note: Annotated[str, Field(max_length=100_000)] | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def _characters(self) -> RunChange:
        finite([self.note, self.tags])
        return self


def plain(body: BaseModel) -> dict[str, Any]:
    """Return a body as the JSON values that a worker or a database is given, without the lists that are empty."""
    document: dict[str, Any] = json.loads(body.model_dump_json(by_alias=True, exclude_none=True))
    return {key: value for key, value in document.items() if key not in EMPTY or value}
