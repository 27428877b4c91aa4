"""Text from any OpenAI-compatible server."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from pellucid.core.errors import Cancelled, InputError, PellucidError
from pellucid.generators.connection import Bill, Connection, RefusedRequest
from pellucid.generators.interface import Reply, Request, choice_reply, collect
from pellucid.generators.limits import Limits
from pellucid.generators.scripted import cut_at

ENDPOINTS = ("chat", "completions")


class ServerGenerator:
    """Generate on an OpenAI-compatible server (vLLM, llama.cpp, Ollama, `transformers serve`, a hosted API).

    A text prompt becomes one user message at `endpoint="chat"`; `endpoint="completions"` continues it as it stands.
    Choices are scored by the log-probabilities of the first token (top 20; 5 for completions): a choice gets every
    listed token that begins one of its spellings and no other choice's; a choice that is not listed gets the smallest
    listed log-probability, which bounds it from above. Where the server gives no log-probabilities, or they do not
    decide, `choice_samples` answers are drawn at temperature 1 and counted, log((count + 1/2) / (counted + choices/2)),
    and `Reply.how` says "sampled answers". An answer that names no choice is not counted.

    A run that stops midway (cost limit, a server that is gone) raises with what was answered in the error's `replies`.
    Requires the package `openai`: `pip install "pellucid[llm]"`.

    Args:
        model: The name that the server knows the model by.
        base_url: The server's address, usually ending in /v1.
        api_key: The key, if the server wants one; no environment variable is read.
        endpoint: "chat" or "completions".
        limits: Retries, pace, timeout and money.
        choice_samples: Answers drawn where choices cannot be scored.

    Raises:
        InputError: If an argument cannot be used.
        MissingExtra: If `openai` is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        endpoint: str = "chat",
        limits: Limits | None = None,
        choice_samples: int = 20,
    ) -> None:
        """Keep the settings; nothing is sent yet."""
        if endpoint not in ENDPOINTS:
            raise InputError(f"The endpoint {endpoint!r} is unknown; use 'chat' or 'completions'.")
        if choice_samples < 1:
            raise InputError(f"choice_samples must be at least 1, but is {choice_samples}.")
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url must begin with http:// or https://, but is {base_url!r}.")
        self.model, self.base_url, self.endpoint = model, base_url.rstrip("/"), endpoint
        self.limits = limits or Limits()
        self.choice_samples = choice_samples
        self._connection = Connection(self.base_url, api_key, self.limits)
        self._log_probs: bool | None = None
        self._many = True
        self._length = "max_tokens"

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.model

    @property
    def identity(self) -> Mapping[str, object]:
        """Return what tells this generator apart in a cache; the key is not part of it."""
        return {"kind": "server", "model": self.model, "base_url": self.base_url, "endpoint": self.endpoint,
                "choice_samples": self.choice_samples}  # fmt: skip

    @property
    def spent(self) -> float:
        """Return the money spent so far."""
        return self._connection.budget.spent

    def close(self) -> None:
        """Close the connections."""
        self._connection.client.close()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order.

        Raises:
            GeneratorError: If the server cannot be used or keeps failing.
            ResourceError: If the cost limit could be exceeded. Both carry `replies`, None where there is no answer.
        """
        return collect(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` as answers arrive, several requests being under way at once.

        After a failure nothing new is asked; the answers under way are still yielded, then the error is raised.
        """
        if self.endpoint == "completions" and any(not isinstance(request.prompt, str) for request in requests):
            raise InputError("The completions endpoint takes texts, but a prompt is a chat; use endpoint='chat'.")
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="pellucid-server")
        failure: PellucidError | None = None
        try:
            futures: dict[Future[Reply], int] = {
                pool.submit(self._answer, request, stop): index for index, request in enumerate(requests)
            }
            for future in as_completed(futures):
                try:
                    reply = future.result()
                except Cancelled:
                    continue
                except PellucidError as error:
                    failure = failure or error
                    continue
                yield futures[future], reply
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure

    def _answer(self, request: Request, stop: threading.Event) -> Reply:
        """Answer one request in a thread of the pool; after a failure, those that wait their turn end at once."""
        bill = Bill()
        try:
            if request.choices:
                return self._choose(request, bill, stop)
            texts, reasons = self._texts(request, bill, stop)
        except PellucidError:
            stop.set()
            raise
        return Reply(texts, None, reasons, bill.prompt_tokens, bill.completion_tokens, bill.cost)

    def _texts(self, request: Request, bill: Bill, stop: threading.Event) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Draw `n` answers; servers that ignore `n` are asked again, each time with another seed."""
        needed = request.n if request.temperature > 0 else 1
        texts: list[str] = []
        reasons: list[str] = []
        while len(texts) < needed:
            wanted = needed - len(texts) if self._many else 1
            body = {"seed": request.seed + len(texts)} | ({"n": wanted} if wanted > 1 else {})
            choices = self._send(request, body, bill, stop, wanted).choices[:wanted]
            self._many = self._many and len(choices) == wanted
            for choice in choices:
                text = choice.text if hasattr(choice, "text") else choice.message.content
                # Some servers leave the stop string at the end.
                texts.append(cut_at(text or "", request.stop))
                reasons.append(getattr(choice, "finish_reason", None) or "stop")
        times = request.n // needed
        return tuple(texts) * times, tuple(reasons) * times

    def _choose(self, request: Request, bill: Bill, stop: threading.Event) -> Reply:
        """Score the choices, by log-probabilities where the server has them, else by counting."""
        groups = request.spellings()
        scores = None
        if self._log_probs is not False:
            one = replace(request, choices=None, max_tokens=1, temperature=0.0, n=1, stop=())
            asked = {"logprobs": 5} if self.endpoint == "completions" else {"logprobs": True, "top_logprobs": 20}
            try:
                tokens = first_tokens(self._send(one, asked, bill, stop, 1).choices[0])
                self._log_probs = tokens is not None
                scores = None if tokens is None else first_token_scores(tokens, groups)
            except RefusedRequest:
                # Perhaps the server dislikes log-probabilities; if it dislikes the prompt, the next attempt says so.
                if self._log_probs:
                    raise
        if scores is not None:
            return self._with_bill(choice_reply(request, scores, "first-token log-probs"), bill)
        longest = max(len(text) for group in groups for text in group)
        drawn = replace(request, choices=None, n=self.choice_samples, temperature=1.0, top_p=1.0, stop=(),
                        max_tokens=max(8, longest))  # fmt: skip
        texts, _ = self._texts(drawn, bill, stop)
        self._log_probs = bool(self._log_probs)
        counts = count_choices(texts, groups)
        if not sum(counts):
            return self._with_bill(Reply((texts[0],), None, ("no choice",), how="sampled answers"), bill)
        total = sum(counts) + len(groups) / 2
        scores = [math.log((count + 0.5) / total) for count in counts]
        return self._with_bill(choice_reply(request, scores, "sampled answers"), bill)

    @staticmethod
    def _with_bill(reply: Reply, bill: Bill) -> Reply:
        used = {"prompt_tokens": bill.prompt_tokens, "completion_tokens": bill.completion_tokens}
        return replace(reply, **used, cost=bill.cost)

    def _send(self, request: Request, extra: dict[str, Any], bill: Bill, stop: threading.Event, n: int) -> Any:
        """Send one request, naming its length as the server wants it named."""
        body: dict[str, Any] = {"model": self.model, "temperature": request.temperature, "seed": request.seed}
        body |= {"prompt": request.prompt} if self.endpoint == "completions" else {"messages": request.messages}
        body |= {"stop": list(request.stop)} if request.stop else {}
        body |= {"top_p": request.top_p} if request.top_p < 1 else {}
        worst = self._connection.budget.worst(request, request.max_tokens, n)
        try:
            return self._connection.send(body | {self._length: request.max_tokens} | extra, worst, bill, stop)
        except RefusedRequest as error:
            # Newer hosted models know the limit under this name only, most other servers under the old one only.
            if self._length != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
            self._length = "max_completion_tokens"
            return self._connection.send(body | {self._length: request.max_tokens} | extra, worst, bill, stop)


def first_tokens(choice: Any) -> dict[str, float] | None:
    """Return the likeliest first tokens of an answer with their log-probabilities, or None where none are given."""
    given = getattr(choice, "logprobs", None)
    content = getattr(given, "content", None)
    if content:
        listed = [*(getattr(content[0], "top_logprobs", None) or []), content[0]]
        return {entry.token: float(entry.logprob) for entry in reversed(listed)}
    table = getattr(given, "top_logprobs", None)
    if table and isinstance(table[0], Mapping) and table[0]:
        return {str(token): float(value) for token, value in table[0].items()}
    return None


def first_token_scores(tokens: Mapping[str, float], groups: Sequence[Sequence[str]]) -> list[float] | None:
    """Return one log-probability per choice from the listed first tokens, or None where they do not decide.

    They do not decide if no listed token begins a choice, or if one begins two different choices.
    """
    found: list[list[float]] = [[] for _ in groups]
    for token, value in tokens.items():
        owners = [index for index, group in enumerate(groups) if any(_begins(token, text) for text in group)]
        if len(owners) > 1:
            return None
        for owner in owners:
            found[owner].append(value)
    if not any(found):
        return None
    bound = min(tokens.values())
    return [_log_sum_exp(values) if values else bound for values in found]


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def _begins(token: str, text: str) -> bool:
    """Tell whether the token is the beginning of the text, or the text and then no further letter."""
    if not token.strip():
        return False
    return text.startswith(token) or (token.startswith(text) and not token[len(text)].isalnum())


def count_choices(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> list[int]:
    """Return how many of the texts begin with each choice; case and outer spaces are ignored, whole words count."""
    counts = [0] * len(groups)
    spelled = sorted({(text.strip().casefold(), index) for index, group in enumerate(groups) for text in group},
                     key=lambda pair: -len(pair[0]))  # fmt: skip
    for text in texts:
        said = text.strip().casefold()
        for spelling, index in spelled:
            if said.startswith(spelling) and not said[len(spelling) : len(spelling) + 1].isalnum():
                counts[index] += 1
                break
    return counts
