"""The house, third part: bad input gives a clear error or a right result, and leaves model and disk as they were."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from scripts.show import ROOT, Shown, line

# Far more work than the time after which it is interrupted.
LONG = "The capital of France is a city that my old friend Anna saw when she went to the market with Tom"
MANY = 5_000
CLEAR = "a PellucidError of one sentence that says what to do; model unchanged"


@cache
def bundled() -> Any:
    """Return the bundled model."""
    import pellucid

    return pellucid.load("zoo:tiny-lm")


def refused(call: Callable[[], Any], *words: str, subject: Any = None, gone: Path | None = None) -> Shown:
    """Expect a PellucidError whose text has all `words`, a subject that is as before, and no file at `gone`."""
    from pellucid.core.errors import PellucidError
    from tests.state import changed, model_state

    before = model_state(subject.model) if subject is not None else {}
    try:
        given = call()
    except PellucidError as error:
        said, kind = str(error), type(error).__name__
    else:
        return Shown(f"no error, but {given!r}"[:200], False)
    lacking = [word for word in words if word.lower() not in said.lower()]
    moved = changed(before, model_state(subject.model)) if subject is not None else []
    left = gone is not None and gone.exists()
    notes = [f"lacks {lacking}"] * bool(lacking) + [f"changed {moved}"] * bool(moved) + ["a file is left"] * left
    return Shown(f"{kind}: {said[:160]}" + "".join(f" -- {note}" for note in notes), not notes and "\n" not in said)


def attribute(prompt: Any, subject: Any = None, **options: Any) -> Any:
    """Run one cheap method."""
    import pellucid

    return pellucid.run("gradient_x_input", subject or bundled(), prompt, **options)


@line("bad input: an empty prompt", bar=CLEAR)
def empty_prompt(out: Path) -> Shown:
    """Explain nothing."""
    return refused(lambda: attribute(""), "empty", subject=bundled())


@line("bad input: a prompt over the model's limit", bar=CLEAR)
def long_prompt(out: Path) -> Shown:
    """Explain more tokens than the model has positions."""
    limit = bundled().max_length
    return refused(lambda: attribute("the " * (limit + 1)), str(limit), subject=bundled())


@line("bad input: a target of two tokens where one is needed", bar=CLEAR)
def two_tokens(out: Path) -> Shown:
    """Ask for one next token and name two."""
    import pellucid

    target = pellucid.Target(" Paris and Rome", kind="next")
    return refused(lambda: attribute("The capital of France is", target=target), "token", subject=bundled())


@line("bad input: an unknown model", bar=CLEAR + ', with "did you mean"')
def unknown_model(out: Path) -> Shown:
    """Load a name that is nearly right."""
    import pellucid

    return refused(lambda: pellucid.load("zoo:tiny-ml"), "did you mean", "tiny-lm")


@line("bad input: an unknown method", bar=CLEAR + ', with "did you mean"')
def unknown_method(out: Path) -> Shown:
    """Run a name that is nearly right."""
    import pellucid

    def call() -> Any:
        return pellucid.run("integrated_gradient", bundled(), "The capital of France is")

    return refused(call, "did you mean", "integrated_gradients", subject=bundled())


@line("bad input: NaN weights", bar=CLEAR)
def nan_weights(out: Path) -> Shown:
    """Load a live model with one NaN."""
    import torch

    import pellucid
    from tests.tiny import TINY

    model = TINY["llama"]()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    return refused(lambda: pellucid.load(model), "NaN")


def saved_model(folder: Path) -> Path:
    """Save the bundled model to a fresh folder and return its weights file."""
    shutil.rmtree(folder, ignore_errors=True)
    bundled().model.save_pretrained(folder)
    bundled().tokenizer.save_pretrained(folder)
    return folder / "model.safetensors"


@line("bad input: a corrupted safetensors file of a model", bar=CLEAR)
def corrupted_model(out: Path) -> Shown:
    """Cut the weights of a saved model in half."""
    import pellucid

    weights = saved_model(out / "corrupted-model")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return refused(lambda: pellucid.load(str(weights.parent)), "corrupted")


@line("bad input: a corrupted safetensors file of a result", bar=CLEAR)
def corrupted_result(out: Path) -> Shown:
    """Turn one byte of a saved result."""
    import pellucid

    folder = out / "corrupted-result"
    shutil.rmtree(folder, ignore_errors=True)
    attribute("The capital of France is").save(folder)
    tensors = folder / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 0xFF
    tensors.write_bytes(content)
    return refused(lambda: pellucid.open(folder), "tensors", "save again")


NO_SPACE = """
import resource, sys
import numpy as np
import pellucid
from pellucid.core.errors import PellucidError
from pellucid.core.results import Scores
result = Scores(values=np.zeros(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for write in (lambda: result.save(sys.argv[1]), lambda: result.html(sys.argv[2])):
    try:
        write()
    except PellucidError as error:
        print(type(error).__name__, error)
"""


@line("bad input: no space left while saving", bar=CLEAR + "; nothing left on disk")
def no_space(out: Path) -> Shown:
    """Save a result and a page in a process that may write 10 kB per file."""
    folder = out / "no-space"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-c", NO_SPACE, str(folder / "result"), str(folder / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said, left = done.stdout.strip().splitlines(), sorted(path.name for path in folder.rglob("*"))
    figure = f"{' | '.join(said)[:200] or done.stderr.strip()[-200:]}; left on disk: {left or 'nothing'}"
    return Shown(figure, len(said) == 2 and not left)


@line("bad input: Ctrl-C in the middle of a method", bar="stops, model unchanged, the next run gives the right answer")
def interrupted(out: Path) -> Shown:
    """Interrupt a long sampling and run something else afterwards."""
    import numpy as np

    import pellucid
    from pellucid.core.errors import Cancelled
    from tests.state import changed, model_state

    subject, prompt = bundled(), "The capital of France is"
    expected, before = attribute(prompt).scores, model_state(subject.model)
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        pellucid.run("shapley_values", subject, LONG, permutations=MANY)
        stopped = "was not stopped"
    except (KeyboardInterrupt, Cancelled) as error:
        stopped = type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    seconds = time.perf_counter() - start
    moved = changed(before, model_state(subject.model))
    same = bool(np.array_equal(expected, attribute(prompt).scores))
    answer = "right" if same else "wrong"
    figure = f"{stopped} after {seconds:.1f} s, changed {moved or 'nothing'}, next answer {answer}"
    return Shown(figure, stopped != "was not stopped" and seconds < 10 and not moved and same)


@line("bad input: Ctrl-C in the middle of a command", bar="exit 130, no page and no partial file")
def interrupted_command(out: Path) -> Shown:
    """Interrupt `pellucid run` a second after the moment at which a short run of it has ended."""
    folder = out / "interrupted"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-m", "pellucid", "run", "shapley_values", LONG, "--permutations"]
    start = time.perf_counter()
    short = subprocess.run([*command, "2"], capture_output=True, text=True, cwd=ROOT, check=False)
    seconds = time.perf_counter() - start
    if short.returncode:
        return Shown(f"a short run ends with status {short.returncode}: {short.stderr.strip()[-120:]}", False)
    command += [str(MANY), "--html", str(folder / "page.html"), "--save", str(folder / "saved")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    time.sleep(seconds + 1)
    early = process.poll()
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return Shown("did not stop within 30 s", False)
    left = sorted(path.name for path in folder.rglob("*"))
    figure = f"exit {process.returncode}: {' '.join(said.split())[-120:]}; left on disk: {left or 'nothing'}"
    return Shown(figure, early is None and process.returncode == 130 and not left)


@line("bad input: `<script>` in a token", bar="the page shows it as text")
def hostile_text(out: Path) -> Shown:
    """Explain a text that is a script and read the page."""
    page = out / "hostile.html"
    text = attribute("<script>alert(1)</script><b onclick=x>\"'& hello").html(page)
    alive = [part for part in ("<script", "<b onclick", "</script") if part in text.lower()]
    return Shown(f"alive in the page: {alive or 'nothing'}", not alive and "&lt;" in text, (page,))


@line("bad input: a lone surrogate", bar="a right result that is saved and opened, or a clear error")
def lone_surrogate(out: Path) -> Shown:
    """Explain a text that UTF-8 cannot hold."""
    import numpy as np

    import pellucid
    from pellucid.core.errors import InputError

    folder = out / "surrogate"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        result = attribute("The capital \ud800 of France is")
    except InputError as error:
        return Shown(f"InputError: {error}", True)
    result.html(out / "surrogate.html")
    result.save(folder)
    again: Any = pellucid.open(folder)
    same = bool(np.array_equal(result.scores, again.scores)) and again.tokens == result.tokens
    return Shown(f"explained, saved and opened {'the same' if same else 'otherwise'}", same, (out / "surrogate.html",))


@line("bad input: right-to-left text", bar="finite scores; the page isolates each piece's direction (looked at)")
def right_to_left(out: Path) -> Shown:
    """Explain Hebrew and Arabic next to English."""
    import numpy as np

    page = out / "right-to-left.html"
    result = attribute("The word שלום means peace and مرحبا means hello", unit="word")
    text = result.html(page)
    whole = "שלום" in text and "مرحبا" in text
    isolated = "<bdi" in text or 'dir="auto"' in text or "unicode-bidi" in text
    figure = f"{len(result.scores)} words, whole: {whole}, directions isolated: {isolated}"
    return Shown(figure, bool(np.isfinite(result.scores).all()) and whole and isolated, (page,))


@line("bad input: a site the model lacks", bar=CLEAR + ", naming the alternative")
def lacking_site(out: Path) -> Shown:
    """Patch `resid_mid` in parallel blocks."""
    import pellucid
    from tests.tiny import TINY

    subject = pellucid.load(TINY["gptj"]())

    def call() -> Any:
        corrupt, site = [1, 4, 3], "resid_mid"
        return pellucid.run("activation_patching", subject, [1, 2, 3], corrupt=corrupt, target=5, site=site)

    return refused(call, "resid_mid", "resid_pre", subject=subject)


@line("bad input: a hook that never fires", bar=CLEAR)
def never_fires(out: Path) -> Shown:
    """Edit a position that the prompt does not have."""
    import pellucid

    edited = bundled().with_(pellucid.Edit("blocks.0.resid_post", "zero", where={"position": 100}))
    return refused(lambda: attribute("The capital of France is", edited), "100", subject=bundled())


@line("bad input: an edit that raises", bar=CLEAR)
def raising_edit(out: Path) -> Shown:
    """Divide by zero inside an edit."""
    import pellucid

    def wrong(value: Any, context: Any) -> Any:
        return value / (1 // 0)

    edited = bundled().with_(pellucid.Edit("blocks.0.resid_post", wrong))
    return refused(lambda: attribute("The capital of France is", edited), "wrong", "zero", subject=bundled())
