"""One request to a server: retries, pace, money, and errors in plain sentences."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from pellucid.core.errors import Cancelled, GeneratorError, InputError, optional
from pellucid.generators.limits import Budget, Limits, Pacer, backoff, retry_after

# What the HTTP library calls failures before anything was sent; by name, since old and new clients use different ones.
NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "ProxyError"}


class RefusedRequest(GeneratorError):
    """The server understood the request and does not want it (400, 413 or 422)."""


@dataclass
class Bill:
    """What one reply has used so far, over all its attempts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Connection:
    """Sends one body at a time to one endpoint of an OpenAI-compatible server; safe for several threads."""

    def __init__(self, base_url: str, api_key: str | None, limits: Limits) -> None:
        """Make the client; nothing is sent yet."""
        self._openai = optional("openai", "llm", "A text generator on a server")
        self.base_url, self.limits = base_url, limits
        self.pacer, self.budget = Pacer(limits.requests_per_minute), Budget(limits)
        self._key = api_key or ""
        # The client's own key variable is not read: a key must not reach a server that it was not meant for.
        self.client = self._openai.OpenAI(
            api_key=api_key or "none", base_url=base_url, timeout=limits.timeout, max_retries=0
        )
        self._reached = False

    def send(self, body: dict[str, Any], worst: float, bill: Bill, stop: threading.Event) -> Any:
        """Return the server's answer to `body`, after as many attempts as it takes.

        Args:
            body: With "messages" a chat completion, with "prompt" a completion.
            worst: The most that one attempt can cost.
            bill: Where tokens and money are added.
            stop: Set when the run is over; no further attempt begins then.

        Raises:
            GeneratorError: If the server cannot be used, or fails more often than `retries`.
            ResourceError: If the cost limit could be exceeded.
            Cancelled: If `stop` was set.
        """
        failure, wait = "", 0.0
        for attempt in range(self.limits.retries + 1):
            stop.wait(wait)
            self.pacer.wait(stop.wait)
            if stop.is_set():
                raise Cancelled("The request was not sent because the run was stopped.")
            try:
                return self._attempt(body, worst, bill)
            except self._openai.APIConnectionError as error:
                failure, wait = self._no_answer(error), backoff(attempt, self.limits.longest_wait)
            except self._openai.APIStatusError as error:
                failure, asked = self._status(error), retry_after(error.response.headers)
                if asked is not None and asked > self.limits.longest_wait:
                    raise GeneratorError(
                        f"The server at {self.base_url} asks to wait {asked:.0f} seconds, more than longest_wait="
                        f"{self.limits.longest_wait:.0f}; ask again later."
                    ) from error
                wait = backoff(attempt, self.limits.longest_wait) if asked is None else asked
        raise GeneratorError(
            f"The server at {self.base_url} failed {self.limits.retries + 1} times, lastly with {failure}; "
            "try again later, or allow more retries or a longer timeout in Limits."
        )

    def _attempt(self, body: dict[str, Any], worst: float, bill: Bill) -> Any:
        """Send once; whatever happens, the reserved money is settled."""
        self.budget.reserve(worst)
        paid = worst
        try:
            answer = self._call(body)
            self._reached = True
            self._check(answer)
            usage = getattr(answer, "usage", None)
            prompt_tokens = getattr(usage, "prompt_tokens", None)
            completion_tokens = getattr(usage, "completion_tokens", None)
            if isinstance(prompt_tokens, int) and isinstance(completion_tokens, int):
                paid = self.budget.cost(prompt_tokens, completion_tokens)
                bill.prompt_tokens += prompt_tokens
                bill.completion_tokens += completion_tokens
            return answer
        except self._openai.APIStatusError:
            self._reached = True
            paid = 0.0
            raise
        except self._openai.APIConnectionError as error:
            if type(error.__cause__).__name__ in NEVER_SENT:
                paid = 0.0
            raise
        finally:
            bill.cost += paid
            self.budget.settle(worst, paid)

    def _call(self, body: dict[str, Any]) -> Any:
        """Call the endpoint that the body is for, and name what the client cannot read."""
        endpoint = self.client.chat.completions if "messages" in body else self.client.completions
        try:
            return endpoint.create(**body)
        except UnicodeEncodeError as error:
            raise InputError(
                f"The prompt holds a lone surrogate ({error.object[error.start]!a}), which cannot be sent; remove it."
            ) from error
        except (ValueError, self._openai.APIResponseValidationError) as error:
            raise self._malformed("is no valid JSON") from error

    def _check(self, answer: Any) -> None:
        """Refuse an answer that is not a completion."""
        if isinstance(answer, str):
            what = "is a web page" if answer.lstrip()[:1] == "<" else "is plain text"
            raise self._malformed(what)
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._malformed("holds no choices")
        for choice in choices:
            if not hasattr(choice, "text") and not hasattr(getattr(choice, "message", None), "content"):
                raise self._malformed("holds a choice without text")

    def _malformed(self, what: str) -> GeneratorError:
        return GeneratorError(
            f"The answer of the server at {self.base_url} {what}, where a completion was expected; "
            "check base_url, which usually ends in /v1, and that the server speaks the OpenAI protocol."
        )

    def _no_answer(self, error: Any) -> str:
        """Return what went wrong on the way, or raise where trying again is hopeless."""
        cause = error.__cause__
        kind = type(cause).__name__
        if kind in NEVER_SENT and not self._reached:
            raise GeneratorError(
                f"The server at {self.base_url} cannot be reached ({cause or error}); check that it runs and that "
                "base_url names its address and port."
            ) from error
        if isinstance(error, self._openai.APITimeoutError):
            return f"no answer within {self.limits.timeout:g} seconds"
        return f"a dropped connection ({kind})"

    def _status(self, error: Any) -> str:
        """Return the failure that is worth another attempt, or raise the others."""
        status = error.status_code
        said = " ".join(str(error.message).split())[:300].rstrip(".")
        if self._key:
            said = said.replace(self._key, "***")
        if status in (401, 403):
            given = "refused the API key" if self._key else "asks for an API key"
            raise GeneratorError(f"The server at {self.base_url} {given} ({status}); pass a valid api_key.") from error
        if status == 404:
            raise GeneratorError(
                f"The server at {self.base_url} does not know this address or model ({said}); check the model's name "
                "and base_url, which usually ends in /v1."
            ) from error
        if getattr(error, "code", None) == "insufficient_quota":
            raise GeneratorError(f"The account at {self.base_url} has no credit left ({said}); top it up.") from error
        if status in (408, 409, 429) or status >= 500:
            return f"status {status} ({said})"
        raise RefusedRequest(f"The server at {self.base_url} refused the request ({said}); change it.") from error
