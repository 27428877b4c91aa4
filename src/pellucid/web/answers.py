"""What the API answers: the shapes in its OpenAPI document, from which the page's types are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]


class Error(BaseModel):
    """Every error: one sentence (what was asked, what was found, what to do) and its kind."""

    error: Annotated[str, Field(examples=["There is no job '12'; GET /api/v1/jobs lists them."])]
    kind: Annotated[str, Field(examples=["NotFound"])]


class Model(BaseModel):
    """A model that can be asked; the sizes are there once it is loaded."""

    id: str
    name: str
    state: Literal["loading", "ready", "failed"]
    error: str = ""
    family: str = ""
    layers: int | None = None
    heads: int | None = None
    kind: str = ""
    head: str = ""
    vocabulary: int | None = None
    longest: int | None = Field(default=None, description="The most tokens that the model takes.")
    chat: bool = False
    classes: list[str] = []
    capabilities: list[str] = []
    dtype: str = ""
    device: str = ""
    revision: str = ""
    hash: str = ""


class Parameter(BaseModel):
    """One parameter of a method, as a form needs it."""

    name: str
    annotation: str = Field(description="The type as the source writes it.")
    kind: str
    also: list[str]
    choices: list[Any]
    min: float | None
    max: float | None
    nullable: bool
    required: bool
    default: Any
    keyword: bool
    words: str = Field(description="What may be given, in words.")
    doc: str = Field(description="What it does, from the docstring.")


class Method(BaseModel):
    """A method, metric or study; `parameters` leaves out the model and what the method is given."""

    name: str
    kind: Literal["method", "metric", "study", "explain"]
    family: str
    summary: str
    paper: str
    rows: list[str]
    patent: str
    takes: str
    produces: str
    axes: list[str]
    needs: list[str]
    cost: str
    better: str
    parameters: list[Parameter]
    available: bool
    reason: str = Field(description="Why the method is not available for the model, or the empty string.")


class Token(BaseModel):
    """A token of a prompt; `start` and `end` are characters of the text, null where the tokenizer does not say."""

    id: int
    text: str
    start: int | None
    end: int | None
    special: bool
    role: str
    message: int


class Candidate(BaseModel):
    """A next token or class with its probability and its logit."""

    id: int
    text: str
    probability: float
    logit: float | None = Field(description="Null for a token that the model rules out.")


class TokensAnswer(BaseModel):
    """A prompt as the model reads it, and what the model says next."""

    text: str
    tokens: list[Token]
    predictions: list[Candidate]
    by_position: list[list[Candidate]] = Field(description="For each position, where all were asked for.")
    watched: list[Candidate]
    notes: list[str]


class Estimate(BaseModel):
    """What a job will take, known when it starts."""

    seconds: float
    bytes: float
    forwards: float
    backwards: float


class Job(BaseModel):
    """A question and how far its answer is; `result` is there once `state` is "done"."""

    id: str
    state: JobState
    place: int | None = Field(description="How many jobs are before this one in the queue.")
    model: str
    method: str
    prompt: str
    created: str
    started: str | None
    ended: str | None
    attempts: int
    done: int | None = Field(description="Rows of the present step that are run.")
    total: int | None
    fraction: float | None = Field(description="The share of the whole job, where its cost is known.")
    seconds: float | None = Field(description="Seconds since the job started.")
    remaining: float | None = Field(description="Seconds that are left, an estimate.")
    estimate: Estimate | None
    message: str = Field(description="What the job does, or why it failed.")
    result: str | None


class Run(BaseModel):
    """A stored result, as a list shows it."""

    id: str
    title: str
    method: str
    methods: list[str]
    kind: str
    model: str
    prompt: str
    target: str
    created: str
    note: str
    tags: list[str]
    request: dict[str, Any] | None = Field(description="The body of the job that made it, to ask it again.")


class Runs(BaseModel):
    """One page of stored results, newest first; `next` is the `before` of the page after it."""

    runs: list[Run]
    next: str | None


class LeftOut(BaseModel):
    """Stands for an array that is too large for a document; `values` of the API gives it slice by slice."""

    left_out: bool
    shape: list[int]
    dtype: str
    min: float | None
    max: float | None


class Result(BaseModel, extra="allow"):
    """A result: the fields of its kind as `pellucid` saves them; arrays are nested lists, NaN is null.

    Scores: values, axes, labels, unit, sign, std_error, tokens, units, target, words. Graph: nodes, sources, targets,
    weights, unit, tokens. Table: columns, rows. Text: text. Examples: items, values, unit. Learned: tensors, apply,
    site, settings. WeightEdit: deltas, weights_hash. Explanation: results, tokens, target, predictions, continuation,
    notes. A large array is left out; see LeftOut.
    """

    kind: Literal["Scores", "Graph", "Table", "Text", "Examples", "Learned", "WeightEdit", "Explanation"]
    id: str
    title: str
    provenance: dict[str, Any]
    evidence: list[dict[str, Any]]
    note: str = ""
    tags: list[str] = []
    job: str | None = None
    arrays: dict[str, LeftOut] = Field(default={}, description="Documents the shape of arrays that are left out.")


class Code(BaseModel):
    """The lines of Python that compute a result again."""

    code: str


class Health(BaseModel):
    """Whether the server works; `store` says what is wrong where it cannot be reached."""

    ok: bool
    version: str
    store: str
    waiting: int
    running: int
