"""The server generator against a real server: `transformers serve`, on the bundled model where it is there."""

from __future__ import annotations

import importlib.resources
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from pellucid.core.errors import GeneratorError
from pellucid.generators import Cached, Limits, LocalGenerator, Request, ServerGenerator, ask_yes_no
from tests.generators.small_models import StandIn, tiny

PROMPTS = ["Hello world", "The answer is", "Paris is the"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, or a tiny random Llama with a chat template."""
    bundled = Path(str(importlib.resources.files("pellucid"))) / "zoo" / "models" / "tiny-lm"
    if (bundled / "config.json").is_file():
        return bundled
    path = tmp_path_factory.mktemp("model")
    subject = tiny(dtype=torch.float32)
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the server on a free port of this machine, and end it afterwards."""
    command = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command `transformers` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    settings = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [command, "serve", str(folder), *settings], stdout=output, stderr=output,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalGenerator:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return LocalGenerator(StandIn(model, transformers.AutoTokenizer.from_pretrained(folder)))


@pytest.mark.slow
def test_a_real_server_says_what_the_model_says_here(
    url: str, folder: Path, local: LocalGenerator, tmp_path: Path
) -> None:
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    for endpoint, prompts in (("chat", chats), ("completions", PROMPTS)):
        server = ServerGenerator(str(folder), base_url=url, endpoint=endpoint, limits=Limits(concurrency=2))
        requests = [Request(prompt, max_tokens=6) for prompt in prompts]
        here, there = local.generate(requests), Cached(server, tmp_path).generate(requests)
        assert [reply.text for reply in there] == [reply.text for reply in here]
        assert [reply.prompt_tokens for reply in there] == [reply.prompt_tokens for reply in here]
        assert all(reply.cached for reply in Cached(server, tmp_path).generate(requests))
        server.close()
    # This server gives no log-probabilities and ignores n, so answers are sampled one by one.
    asking = ServerGenerator(str(folder), base_url=url, choice_samples=3)
    reply = asking.generate([Request("Is it?", choices=("yes", "no"), max_tokens=4)])[0]
    assert reply.how == "sampled answers"
    chance = ask_yes_no(asking, ["Is Paris the world?"])[0]
    assert math.isnan(chance) or 0 < chance < 1
    asking.close()
    unknown = ServerGenerator("another", base_url=url, limits=Limits(retries=0))
    with pytest.raises(GeneratorError):
        unknown.generate([Request("x")])
    unknown.close()
