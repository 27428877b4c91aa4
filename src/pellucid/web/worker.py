"""A worker process: it holds models, and answers questions or works on jobs, so that the server itself never computes.

Started as `python -m pellucid.web.worker`. It speaks lines of JSON: the first line of its standard input says what it
is for, each further one asks something; what it answers goes to standard output, what libraries print to standard
error. It ends when its input ends, that is when the server is gone.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from pellucid.web.job_worker import work
from pellucid.web.line import Line, load_models, messages, sentence

NICE = 10


def answer_questions(line: Line, config: Mapping[str, Any]) -> None:
    """Load the models and answer one question after the other."""
    subjects = load_models(line, config)
    line.say(ready=True)
    for message in messages():
        try:
            value = _answer(subjects, config, message)
        except Exception as error:
            line.say(answer=message["ask"], **sentence(error))
        else:
            line.say(answer=message["ask"], value=value)


def _answer(subjects: Mapping[str, Any], config: Mapping[str, Any], message: Mapping[str, Any]) -> Any:
    if message["task"] == "tokens":
        from pellucid.web.reading import read_prompt

        return read_prompt(subjects[message["model"]], message["body"])
    from pellucid.store import Store
    from pellucid.web.files import written

    with Store.open(config["store"], config["folder"], patience=config["patience"]) as store:
        return base64.b64encode(written(store.get(message["result"]), message["format"])).decode()


def main() -> None:
    """Read what this worker is for, and be it."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
    os.dup2(2, 1)  # a library that prints must not break the line
    config: dict[str, Any] = json.loads(sys.stdin.readline())
    line = Line(out)
    if config["lane"] == "jobs":
        os.nice(NICE)
        work(line, config)
    else:
        answer_questions(line, config)


if __name__ == "__main__":
    main()
