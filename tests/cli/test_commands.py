from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.cli.run import OPTIONS
from pellucid.core.catalogue import Entry, entries
from tests.cli.conftest import Cli
from tests.signals import interruptible

OWN = [entry for entry in entries() if entry.kind != "view"]
COMMANDS = [["explain"], ["run"], ["methods"], ["models"], ["check"], ["open"], []]


def notes(cli: Cli) -> dict[str, str]:
    return dict(note.split("=", 1) for note in json.loads(cli.out)["notes"][1:])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "pellucid")
def test_every_command_has_help(cli: Cli, command: list[str]) -> None:
    cli(*command, "--help")
    assert cli.status == 0
    assert cli.out.startswith("Usage: ")
    assert "--help" in cli.out
    assert cli.err == ""


@pytest.mark.slow
def test_every_method_has_help_without_torch() -> None:
    """One process for all of them, because starting one takes longer than the help."""
    code = "import sys; from pellucid.cli import main\n"
    code += "for name in sys.argv[1:]: print(f'\\0{name}', main(['run', name, '--help']))\n"
    command = [sys.executable, "-c", f"{code}print('torch' in sys.modules)", *(entry.name for entry in OWN)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    pages = done.stdout.split("\0")
    for entry, page, after in zip(OWN, pages, pages[1:], strict=False):
        assert after.startswith(f"{entry.name} 0")
        assert f"pellucid run {entry.name}" in page
        plain = [
            p for p in entry.parameters if p["keyword"] and p["kind"] in ("choice", "int", "float", "bool", "text")
        ]
        assert all(f"--{p['name'].replace('_', '-')}" in page for p in plain)


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: entry.name)
def test_no_parameter_takes_the_name_of_a_common_option(entry: Entry) -> None:
    assert not {p["name"] for p in entry.parameters} & {*OPTIONS, "text"}


def test_explain_passes_everything_on(cli: Cli) -> None:
    cli("explain", "Hello", "--model", "tiny", "--method", "example,example", "--target", " you", "--contrast", "id:7",
        "--generate", "3", "--unit", "word", "--budget", "2.5", "--seed", "9", "--json")  # fmt: skip
    assert cli.status == 0, cli.err
    document = json.loads(cli.out)
    assert (document["kind"], document["target"], document["notes"][0]) == ("Explanation", "Hello", "tiny")
    assert notes(cli) == {
        "target": "' you'", "contrast": "7", "methods": "['example', 'example']", "unit": "'word'", "generate": "3",
        "budget": "2.5", "seed": "9",
    }  # fmt: skip
    assert document["results"][0]["values"] == [1.0, None]


def test_explain_has_the_defaults_of_python(cli: Cli) -> None:
    cli("explain", "Hello", "--json")
    assert notes(cli) == {
        "target": "None", "contrast": "None", "methods": "'auto'", "unit": "'token'", "generate": "0", "budget": "None",
        "seed": "0",
    }  # fmt: skip
    assert json.loads(cli.out)["notes"][0] == "zoo:tiny-lm"


def test_json_is_all_that_is_printed(cli: Cli) -> None:
    cli("explain", "Hello", "--json", "--html", "page.html", "--save", "kept")
    assert len(cli.out.splitlines()) == 1
    assert json.loads(cli.out)["kind"] == "Explanation"
    assert "a library prints this" in cli.err
    assert Path("page.html").read_text(encoding="utf-8").lstrip().startswith("<!")
    assert pellucid.open("kept").target == "Hello"  # type: ignore[attr-defined]


def test_a_person_sees_the_result_and_where_files_are(cli: Cli) -> None:
    cli("explain", "Hello", "--html", "page.html", "--save", "kept")
    assert cli.status == 0, cli.err
    assert "a library prints this" not in cli.out
    assert "Hello" in cli.out
    assert f"Page written to {Path('page.html').resolve()}" in cli.out
    assert "Saved to kept" in cli.out
    assert cli("open", "kept", "--json") == cli("open", "kept", "--json")
    assert json.loads(cli.out)["target"] == "Hello"


def test_the_prompt_comes_from_argument_file_or_stdin(cli: Cli) -> None:
    Path("prompt.txt").write_text("from a file\n", encoding="utf-8")
    for arguments, stdin, seen in (
        (["given"], None, "given"),
        (["--file", "prompt.txt"], None, "from a file"),
        (["-"], "piped\n", "piped"),
        ([], "two\nlines\n", "two\nlines"),
        (["--", "--debug"], None, "--debug"),
    ):
        cli("explain", "--json", *arguments, stdin=stdin)
        assert json.loads(cli.out)["target"] == seen
    cli("explain", "--chat", '[{"role": "user", "content": "Hi"}]', "--json")
    assert json.loads(cli.out)["target"] == "[{'role': 'user', 'content': 'Hi'}]"


ERRORS: list[tuple[list[str], str | None, str]] = [
    (["explain", ""], None, "pellucid: The prompt is empty; write something."),
    (["explain", "a", "--file", "b"], None, "pellucid: Both TEXT and --file were given; give one of them."),
    (["explain", "--file", "absent.txt"], None, "pellucid: The file 'absent.txt' cannot be read (No such file"),
    (["explain", "--file", "latin.txt"], None, "pellucid: The file 'latin.txt' is not UTF-8 text (invalid start byte"),
    (["explain", "--chat", "hello"], None, "pellucid: --chat needs JSON, but what was given does not parse: "),
    (["explain", "--chat", '{"role": "user"}'], None, "pellucid: --chat needs a JSON list of messages such as "),
    (["explain", "a", "--method", "exampel"], None, "pellucid: There is no method 'exampel' (did you mean"),
    (["explain", "a", "--method", ","], None, "pellucid: --method was given no name; "),
    (["explain", "a", "--budget", "long"], None, "pellucid: Invalid value for '--budget'"),
    (["explain", "a", "--sed", "1"], None, "pellucid: No such option: --sed"),
    (["explian", "a"], None, "pellucid: No such command 'explian'. Did you mean 'explain'?"),
    (["run", "exampel", "a"], None, "pellucid: There is no method 'exampel' (did you mean 'example'?)."),
    (["run", "example", "a", "--steps", "0"], None, "pellucid: example got steps=0, but steps must be a whole number"),
    (["run", "example", "a", "--unit", "tokn"], None, "pellucid: example got unit='tokn', but unit must be 'token', "),
    (["run", "example", "a", "--preset", "captm"], None, "pellucid: There is no preset 'captm' (did you mean"),
    (["run", "example", "a", "--before", "absent"], None, "pellucid: No saved result was found at 'absent'; "),
    (["open", "absent"], None, "pellucid: No saved result was found at 'absent'; "),
    (["check"], None, "pellucid: Missing argument 'MODEL'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "stdin", "line"), ERRORS, ids=[" ".join(a)[:40] for a, _, _ in ERRORS])
def test_an_error_is_one_line_on_stderr_and_status_2(
    cli: Cli, arguments: list[str], stdin: str | None, line: str
) -> None:
    Path("latin.txt").write_bytes(b"\xff\xfe")
    cli(*arguments, stdin=stdin)
    assert cli.status == 2
    assert cli.out == ""
    [said] = [seen for seen in cli.err.splitlines() if seen != "a library prints this"]
    assert said.startswith(line)


def test_debug_shows_the_traceback_wherever_it_stands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect\nwith details")

    monkeypatch.setitem(pellucid.__dict__, "explain", broken)
    cli("explain", "a")
    assert cli.err == "pellucid: unexpected RuntimeError: a defect with details; run again with --debug to see where.\n"
    assert cli.status == 2
    code = "import pellucid.cli; pellucid.__dict__['load'] = None; pellucid.cli.main(['explain', 'a', '--debug'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert "NoneType" in done.stderr


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_stopping_leaves_130_and_no_file(cli: Cli, monkeypatch: pytest.MonkeyPatch, flag: list[str]) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(pellucid.__dict__, "explain", stopped)
    cli("explain", "a", "--save", "kept", "--html", "page.html", *flag)
    assert (cli.status, cli.out) == (130, "")
    assert cli.err == "pellucid: stopped; nothing half-written is left.\n"
    assert not Path("kept").exists()
    assert not Path("page.html").exists()


def test_ctrl_c_stops_a_real_process(tmp_path: Path) -> None:
    code = (
        "import pellucid, time, sys\nfrom pellucid.cli import main\n"
        "def load(name):\n    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "pellucid.__dict__['load'] = load\nsys.exit(main(['explain', 'a', '--save', 'kept']))"
    )
    with interruptible():
        child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=30) == 130
    assert child.stderr.read() == "pellucid: stopped; nothing half-written is left.\n"
    child.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_run_makes_options_from_the_signature(cli: Cli) -> None:
    cli("run", "example", "--help")
    page = " ".join(cli.out.split())
    assert "--steps INT How often; [steps] many. Default: 4." in page
    for piece in (
        "--centred / --no-centred",
        "Count [the letters].",
        "--unit token|word|",
        "steps*F",
        "--before SCORES",
    ):
        assert piece in page
    assert "--subject" not in cli.out
    assert "--prompt" not in cli.out


def test_run_passes_values_of_the_right_type(cli: Cli) -> None:
    def title(*arguments: str, stdin: str | None = None) -> str:
        return json.loads(cli("run", "example", *arguments, "--json", stdin=stdin))["title"]

    assert title("abc") == "abc|None|token|4|True||NoneType"
    assert title("abc", "--target", "id:5", "--steps", "9", "--no-centred") == "abc|5|token|9|False||NoneType"
    assert title("abc", "--unit", "[[0, 1], [1, 3]]") == "abc|None|[(0, 1), (1, 3)]|4|True||NoneType"
    assert title("-", "--preset", "captum", stdin="x") == "x|Target(what=None, contrast=None, measure='log_prob', " \
        "kind='auto', each=False, length=0)|token|50|True||NoneType"  # fmt: skip
    cli("run", "example", "abc", "--save", "kept")
    assert title("abc", "--other", "b", "--before", "kept") == "abc|None|token|4|True|b|Scores"
    document = json.loads(cli.out)
    assert document["provenance"]["parameters"]["before"]["type"] == "Scores"
    assert document["provenance"]["model"] == "zoo:tiny-lm"


def test_run_reads_both_prompts_of_a_chat_as_messages(cli: Cli) -> None:
    chat = '[{"role": "user", "content": "Hi"}]'
    cli("run", "example", chat, "--other", chat, "--chat", "--json")
    assert json.loads(cli.out)["title"].count("{'role': 'user', 'content': 'Hi'}") == 2


def test_methods_lists_what_there_is(cli: Cli) -> None:
    [entry] = json.loads(cli("methods", "--json"))
    assert {"name", "kind", "rows", "paper", "takes", "produces", "needs", "cost", "parameters"} <= set(entry)
    assert (entry["name"], entry["rows"], entry["cost"]) == ("example", ["FAP-1"], "steps*F")
    assert "example" in cli("methods")
    assert "Count [the letters]." in cli.out
    rows = json.loads(cli("methods", "--coverage", "--json"))
    assert [row["delivered_by"] for row in rows if row["id"] == "FAP-1"] == [["example"]]
    assert cli("methods", "--coverage").splitlines()[-1] == "1 of 357 rows delivered, 2 left out with a reason."


def test_models_shows_the_cards(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pellucid.zoo, "names", lambda: ["tiny-lm"])
    monkeypatch.setattr(
        pellucid.zoo, "card", lambda name: {"name": name, "bytes": 7, "path": Path("here"), "text": "[x]"}
    )
    monkeypatch.setattr("pellucid.cli.models.downloaded", list)
    [card] = json.loads(cli("models", "--json"))
    assert card == {"name": "tiny-lm", "bytes": 7, "path": "here", "text": "[x]"}
    assert "zoo:tiny-lm" in cli("models")


def test_models_lists_what_was_downloaded(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--small" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "models--someone--small" / "refs").mkdir()
    (cache / "models--someone--small" / "refs" / "main").write_text("0123", encoding="utf-8")
    (snapshot / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n# Small\n\nA small one. It is tiny.\n")
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: _scan(cache))
    cards = {card["name"]: card for card in json.loads(cli("models", "--json"))}
    assert set(pellucid.zoo.names()) <= set(cards)
    assert cards["someone/small"]["architecture"] == "LlamaForCausalLM"
    assert "knows where the parts of llama are" in cards["someone/small"]["known"][0]
    assert "A small one." in cli("models")
    assert "It is tiny." in cli("models", "someone/small")
    assert "zoo:truth/fact" in cli("models", "truth/fact")
    cli("models", "nothing-like-it")
    assert (cli.status, cli.out) == (2, "")


def _scan(cache: Path) -> Any:
    from huggingface_hub.utils import scan_cache_dir

    return scan_cache_dir(cache)


def test_check_says_what_fails(cli: Cli) -> None:
    assert json.loads(cli("check", "sound", "--json"))["columns"] == ["check", "ok", "seen"]
    assert cli.status == 0
    cli("check", "broken")
    assert cli.status == 1
    assert "the logits differ" in cli.out


def test_version_and_bare_command(cli: Cli) -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'version = "{pellucid.__version__}"' in project.read_text(encoding="utf-8")
    assert cli("--version") == f"pellucid {pellucid.__version__}\n"
    assert cli().startswith("Usage: pellucid")
    assert cli.status == 0


@pytest.mark.parametrize(
    "start", [["-m", "pellucid"], ["-c", "from pellucid.cli import main; raise SystemExit(main())"]]
)
def test_it_starts_as_a_module_and_as_a_script(start: list[str]) -> None:
    done = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pellucid {pellucid.__version__}\n"


def test_listing_needs_no_torch() -> None:
    code = "import sys; from pellucid.cli import main; main(['methods', '--json']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_main_returns_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    from pellucid.cli import main

    check: Callable[[list[str]], int] = main
    assert check(["--version"]) == 0
    assert check(["nonsense"]) == 2
    assert capsys.readouterr().err == "pellucid: No such command 'nonsense'.\n"
