"""Twenty people at once on the API while a long job runs: `python -m bench.page_load [SECONDS]` (default: 120).

Prints one line of JSON: calls, errors, answers that were another person's, and quantiles of the time a cheap call took.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.web.served import CAPITAL, LONG, MODEL, Client, serving

PEOPLE = 20
CAPITALS = {"France": " Paris", "Italy": " Rome", "Spain": " Madrid"}
CALLS = ("tokens", "tokens", "models", "result", "runs", "job")


class Person(threading.Thread):
    """Asks something cheap, checks the answer, reads for a moment, and asks again."""

    def __init__(self, number: int, client: Client, done: dict[str, Any], job: str, until: float) -> None:
        super().__init__()
        self.draw, self.client, self.done, self.job, self.until = random.Random(number), client, done, job, until
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.mixed = 0

    def run(self) -> None:
        """Ask until the time is over."""
        while time.time() < self.until:
            start = time.perf_counter()
            try:
                self.mixed += not self.ask(self.draw.choice(CALLS))
            except Exception as error:  # whatever it is, it is a failed call
                self.errors.append(repr(error)[:200])
            self.seconds.append(time.perf_counter() - start)
            time.sleep(self.draw.uniform(0.2, 1.0))

    def ask(self, kind: str) -> bool:
        """Make one call and return whether the answer is the right one."""
        if kind == "tokens":
            land = self.draw.choice(list(CAPITALS))
            found = self.client.post(f"/models/{MODEL}/tokens", {"prompt": f"The capital of {land} is", "top": 1})
            return bool(found["predictions"][0]["text"] == CAPITALS[land])
        if kind == "result":
            return bool(self.client.get(f"/results/{self.done['id']}") == self.done)
        if kind == "job":
            return bool(self.client.get(f"/jobs/{self.job}")["id"] == self.job)
        return bool(self.client.get("/models" if kind == "models" else "/runs?limit=20"))


def main(seconds: float) -> dict[str, Any]:
    """Serve, let them ask, and return the figures."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "store.db") as server:
        client = server.client
        done = client.answer("gradient_norm")
        job = client.post("/jobs", {**LONG, "prompt": " ".join([CAPITAL] * 40)})["id"]
        while client.get(f"/jobs/{job}")["state"] != "running":
            time.sleep(0.1)
        until = time.time() + seconds
        people = [Person(number, client, done, job, until) for number in range(PEOPLE)]
        for person in people:
            person.start()
        for person in people:
            person.join()
        state = client.get(f"/jobs/{job}")["state"]
        client("DELETE", f"/api/v1/jobs/{job}")
    times = sorted(one for person in people for one in person.seconds)
    quantiles = {f"p{q}_ms": round(1000 * times[int(q / 100 * (len(times) - 1))]) for q in (50, 95, 99)}
    errors = [error for person in people for error in person.errors]
    return {"calls": len(times), "errors": len(errors), "mixed": sum(person.mixed for person in people), **quantiles,
            "job_at_the_end": state, "first_errors": errors[:3]}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)))
