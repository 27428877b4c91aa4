"""What stands behind the tools of the MCP server: the models of its list, its store, and its limits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.results import Result
from pellucid.web.bodies import JobBody, plain
from pellucid.web.catalogue import check
from pellucid.web.work import computed, described

if TYPE_CHECKING:
    from pellucid.models.subject import Subject
    from pellucid.store import Store


@dataclass(frozen=True)
class Limits:
    """What one question may be: `characters` in any text, `tokens` in any prompt, `seconds` of budget."""

    characters: int = 20_000
    tokens: int = 2_000
    seconds: float = 300.0


@dataclass
class Service:
    """Answers questions about the models of one list, and keeps each answer in the store.

    `models` maps the id of a model, which questions name, to what `pellucid.load` is given; nothing in a question can
    add to it. A model is loaded when it is first asked.
    """

    models: Mapping[str, str]
    store: Store
    limits: Limits = field(default_factory=Limits)
    trust_remote_code: bool = False
    _loaded: dict[str, Subject] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def cards(self) -> list[dict[str, Any]]:
        """Return what is known about each model: its id, and more once it was loaded."""
        known = {name: described(subject) for name, subject in self._loaded.items()}
        return [{"id": name, "loaded": name in known, **known.get(name, {})} for name in self.models]

    def subject(self, model: str) -> Subject:
        """Return a model of the list, loaded; raise `InputError` for any other."""
        if model not in self.models:
            hint = did_you_mean(model, self.models) or f"; there are {', '.join(self.models)}"
            raise InputError(f"There is no model {model[:100]!r}{hint}.")
        with self._loading:
            if model not in self._loaded:
                import pellucid

                self._loaded[model] = pellucid.load(self.models[model], trust_remote_code=self.trust_remote_code)
            return self._loaded[model]

    def ask(self, question: Mapping[str, Any]) -> tuple[int, Result]:
        """Compute a result, save it, and return its number and itself.

        Args:
            question: the fields of a job (see `pellucid.web.bodies.JobBody`); None stands for what is not given.

        Raises:
            PellucidError: the question does not fit the method, the model or the limits, or the result was not saved.
        """
        given = {key: value for key, value in question.items() if value is not None}
        given["model"] = given.get("model") or next(iter(self.models))
        budget = min(given.get("budget", self.limits.seconds), self.limits.seconds)
        try:
            body = JobBody.model_validate(given | ({"budget": budget} if given["method"] == "explain" else {}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"The question does not fit: {where + ': ' if where else ''}{first['msg']}.") from None
        subject = self.subject(body.model)
        models = {name: self.subject(name) for name in body.models}
        check(body, {**described(subject), "state": "ready"}, self.models, self.limits.characters)
        request = plain(body)
        self._check_tokens(subject, request)
        result = computed({**models, body.model: subject}, request, self.store.get)
        config = {"task": body.method, "model": body.model, "parameters": request}
        return self.store.add(result, body.method, config), result

    def _check_tokens(self, subject: Subject, request: Mapping[str, Any]) -> None:
        pair = request.get("pair") or {}
        prompts = [request.get("prompt"), pair.get("clean"), pair.get("corrupt")]
        for prompt in (prompt for prompt in prompts if prompt is not None):
            count = len(subject.encode(prompt))
            if count > self.limits.tokens:
                raise InputError(
                    f"A prompt has {count} tokens, and at most {self.limits.tokens} are taken here; shorten it."
                )
