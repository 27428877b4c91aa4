"""Ctrl-C and full disks: nothing half-done is left, in memory or on disk."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.core.errors import Cancelled, ResourceError
from pellucid.engine.planning import controlled
from tests.bad_input.small import PROMPT, decoder, decoder_tokenizer, language_model, left_alone, saved
from tests.conftest import ROOT
from tests.signals import interruptible

CALLS: dict[str, Callable[[Any], Any]] = {
    "occlusion": lambda subject: pellucid.run("occlusion", subject, PROMPT, target=7),
    "integrated gradients": lambda subject: pellucid.run("integrated_gradients", subject, PROMPT, target=7),
    "patching of patterns": lambda subject: pellucid.run(
        "activation_patching", subject, [1, 5, 6], corrupt=[1, 7, 6], target=7, site="attn.pattern"
    ),
    "explain": lambda subject: pellucid.explain(subject, PROMPT, generate=2),
    "many prompts": lambda subject: pellucid.run("gradient_x_input", subject, [PROMPT, "Hello"], target=7),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("site", ["blocks.1.resid_post", "blocks.0.attn.pattern", "embed.token"])
def test_ctrl_c_inside_an_edit(name: str, site: str) -> None:
    """The user's key press arrives in the middle of a forward, where hooks and switched attention are at work."""
    presses = iter([False, True])

    def edit(value: torch.Tensor, context: Any) -> torch.Tensor:
        if next(presses):
            raise KeyboardInterrupt
        return value

    subject = language_model()
    expected = pellucid.run("occlusion", subject, PROMPT, target=7).scores
    with left_alone(subject.model), pytest.raises(KeyboardInterrupt):
        CALLS[name](subject.with_(Edit(site, edit)))
    np.testing.assert_array_equal(pellucid.run("occlusion", subject, PROMPT, target=7).scores, expected)


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_inside_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    subject = pellucid.load(model, decoder_tokenizer())
    model.train()  # evaluation mode is held during a run, and must end with it
    expected = CALLS["occlusion"](subject).scores
    with left_alone(model), monkeypatch.context() as patch:
        patch.setattr(type(model.model.layers[1].mlp), "forward", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            CALLS[name](subject)
    np.testing.assert_array_equal(CALLS["occlusion"](subject).scores, expected)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", CALLS)
def test_cancelling_between_batches(name: str) -> None:
    subject, cancel = language_model(), threading.Event()
    with left_alone(subject.model), controlled(lambda done, total: cancel.set(), cancel):
        with suppress(Cancelled):
            CALLS[name](subject)  # a call of one batch ends before it is stopped
        with pytest.raises(Cancelled, match="nothing was changed"):
            CALLS[name](subject)


@pytest.mark.slow
def test_ctrl_c_in_the_command_line_leaves_no_file(tmp_path: Path) -> None:
    """A real signal to a real process, once it has begun to explain (its progress bar on a terminal says so)."""
    model = saved(
        tmp_path / "model", num_hidden_layers=8, max_position_embeddings=4096, hidden_size=128, intermediate_size=512
    )
    out = tmp_path / "out"
    out.mkdir()
    text = "Hello world the Paris is London " * 100
    command = [sys.executable, "-m", "pellucid", "explain", text, "--model", str(model), "--method", "shapley_values"]
    command += ["--save", str(out / "saved"), "--html", str(out / "page.html")]
    ours, theirs = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "200"}
    with interruptible():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=env, start_new_session=True
        )
    os.close(theirs)
    try:
        said = _read_until(ours, b"Explaining", 120)
        time.sleep(1.0)
        assert process.poll() is None, said
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
        said = _read_until(ours, b"stopped", 5)
    finally:
        process.kill()
        os.close(ours)
    # A shell says 130 for both: Python also ends by the signal itself where that broke into an `exec`, as at imports.
    assert process.returncode in (130, -signal.SIGINT), said
    assert printed == b""
    assert b"Traceback" not in said
    assert list(out.iterdir()) == []


def _read_until(terminal: int, word: bytes, seconds: float) -> bytes:
    """Read what a process writes to its terminal until a word appears."""
    said, end = b"", time.monotonic() + seconds
    os.set_blocking(terminal, False)
    while word not in said and time.monotonic() < end:
        try:
            said += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:  # the other side has closed
            break
    assert word in said, said.decode(errors="replace")
    return said


NO_SPACE = """
import resource, signal, sys
import numpy as np
from pellucid.core.errors import ResourceError
from pellucid.core.results import Scores
from pellucid import open as open_result
small, large = Scores(values=np.zeros(10)), Scores(values=np.zeros(100_000))
small.save(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for write in (lambda: large.save(sys.argv[1]), lambda: large.save(sys.argv[2]), lambda: large.html(sys.argv[3])):
    try:
        write()
    except ResourceError as error:
        print(error)
print(len(open_result(sys.argv[1]).values))
"""


def test_no_space_left_while_saving(tmp_path: Path) -> None:
    """The process may write 10 kB per file: the old result stays, and nothing else is left."""
    paths = [str(tmp_path / name) for name in ("old", "new", "page.html")]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, *paths], capture_output=True, text=True, env=env, check=False
    )
    said = done.stdout.splitlines()
    assert len(said) == 4, done.stdout + done.stderr
    for line, path in zip(said, paths, strict=False):
        assert path in line
        assert "no space left" in line
        assert line.endswith(".")
    assert said[-1] == "10"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_memory_that_runs_out_on_one_row() -> None:
    def hungry(value: torch.Tensor, context: Any) -> torch.Tensor:
        raise MemoryError

    subject = language_model()
    with left_alone(subject.model), pytest.raises(ResourceError, match=r"ran out of memory on 1 rows .* smaller"):
        pellucid.run("occlusion", subject.with_(Edit("blocks.0.resid_post", hungry)), PROMPT, target=7)
