"""The shape of the house, held on the syntax tree: docs/architecture.md says why."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import source

HOOKS = re.compile(r"^register_(module_)?(full_)?(forward|backward|state_dict|load_state_dict)\w*hook$")
# Packages that must load, list and draw without torch: core and render at any time, the others when they are imported.
NEVER_TORCH = ("core", "render")
NOT_AT_IMPORT = ("store", "cli", "web", "", "__main__")
HEAVY = ("torch", "transformers", "safetensors.torch")
LONGEST_FILE, LONGEST_FUNCTION, SHARE = 400, 60, 0.95
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff", ".html", ".css", ".ts", ".tsx", ""}


def at(module: source.Module, line: int) -> str:
    return f"{module.path}:{line}"


def inside() -> Iterator[tuple[source.Module, source.Import]]:
    """Every import of one module of the package by another."""
    for module in source.modules():
        for item in source.imports(module):
            if item.name == "pellucid" or item.name.startswith("pellucid."):
                yield module, item


def layer_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [str(m.path) for m in source.modules() if m.layer not in (*source.LAYERS, "", "__main__")]
    assert not homeless


def test_layers_import_only_themselves_and_lower_ones() -> None:
    order = {layer: place for place, layer in enumerate(source.LAYERS)}
    wrong = [
        f"{at(module, item.line)} {module.layer} imports {item.name}"
        for module, item in inside()
        if module.layer not in ("", "__main__")
        and not source.reaches_up(module, item)
        and not (item.name == "pellucid" and module.layer in source.TOP)  # these use the public names
        and order.get(layer_of(item.name), len(order)) > order[module.layer]
    ]
    assert not wrong


def test_nothing_imports_what_stands_on_top() -> None:
    wrong = [
        f"{at(module, item.line)} imports {item.name}"
        for module, item in inside()
        if layer_of(item.name) in source.TOP
        and module.layer not in (layer_of(item.name), "__main__")
        and (module.layer, layer_of(item.name)) != ("cli", "web")
    ]
    assert not wrong


def test_no_modules_import_each_other() -> None:
    assert source.cycles() == []


def test_methods_never_import_methods() -> None:
    wrong = [
        f"{at(module, item.line)} imports {item.name}"
        for module in source.method_files()
        for item in source.imports(module)
        if item.name.startswith("pellucid.methods") and item.name != f"{module.name.rpartition('.')[0]}._shared"
    ]
    assert not wrong


def test_hooks_are_registered_in_one_file() -> None:
    wrong = [
        f"{at(module, node.lineno)} {node.attr}"
        for module in source.modules()
        if module.name != "pellucid.models.hooks"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and HOOKS.match(node.attr)
    ]
    assert not wrong


def test_torch_stays_out_where_results_are_opened_and_listed() -> None:
    wrong = [
        f"{at(module, item.line)} imports {item.name}"
        for module in source.modules()
        for item in source.imports(module)
        if any(item.name == heavy or item.name.startswith(f"{heavy}.") for heavy in HEAVY)
        and (
            module.layer in NEVER_TORCH
            or (item.at_import and (module.layer in NOT_AT_IMPORT or module.name == "pellucid.methods"))
        )
    ]
    assert not wrong


def test_nothing_is_unpickled() -> None:
    banned = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    wrong = [
        f"{at(module, item.line)} imports {item.name}"
        for module in source.modules()
        for item in source.imports(module)
        if item.name.split(".")[0] in banned
    ]
    wrong += [
        f"{at(module, node.lineno)} calls {ast.unparse(node.func)}"
        for module in source.modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load", "torch.save")
    ]
    assert not wrong


def test_files_and_functions_are_short() -> None:
    lengths = {str(module.path): module.text.count("\n") for module in source.modules()}
    long_files = [f"{path} has {lines} lines" for path, lines in lengths.items() if lines > LONGEST_FILE]
    long_functions = [
        f"{at(module, node.lineno)} {name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for module in source.modules()
        for name, node in source.functions(module)
        if (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long_files + long_functions


@pytest.mark.parametrize("what", ["documented", "annotated"])
def test_public_functions_are(what: str) -> None:
    share, count, lacking = source.share(what)
    print(f"{share:.1%} of {count} public functions are {what}")
    assert count > 0
    assert share >= SHARE, lacking


def test_a_method_file_has_one_public_function_of_its_name() -> None:
    wrong = []
    for module in source.method_files():
        public = [name for name, _ in source.functions(module) if "." not in name and not name.startswith("_")]
        if public != [module.name.split(".")[-1]]:
            wrong.append(f"{module.path} has {public}")
    assert not wrong


def test_method_names_are_unique() -> None:
    names = [module.name.split(".")[-1] for module in source.method_files()]
    assert sorted(names) == sorted(set(names))


def test_every_method_has_its_test_and_its_changelog_line() -> None:
    fragments = [*(source.ROOT / "changelog.d").glob("*.md"), source.ROOT / "CHANGELOG.md"]
    written = "\n".join(path.read_text(encoding="utf-8") for path in fragments if path.is_file())
    lacking = []
    for module in source.method_files():
        name = module.name.split(".")[-1]
        if not list((source.ROOT / "tests" / "methods").rglob(f"test_{name}.py")):
            lacking.append(f"{name} has no tests/methods/test_{name}.py")
        if f"`{name}`" not in written:
            lacking.append(f"{name} is named in no fragment of changelog.d/")
    assert not lacking


def tracked() -> list[Path]:
    """The files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is not a git work tree")
    return [source.ROOT / line for line in done.stdout.splitlines()]


def test_no_text_names_a_place_on_one_machine() -> None:
    # Put together here, so that this file passes its own test.
    place = re.compile(
        "|".join(["/ro" + r"ot/", "/wo" + r"rk/", r"/home/[a-z]\w*/", r"/Us" + r"ers/\w+/", r"[A-Z]:\\Us" + "ers"])
    )
    here = str(source.ROOT)
    wrong = []
    for path in tracked():
        if path.suffix not in TEXT or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if place.search(line) or here in line:
                wrong.append(f"{path.relative_to(source.ROOT)}:{number}")
    assert not wrong


def test_the_checks_see_what_they_look_for() -> None:
    """A check that cannot fail is worthless: each one of the readers finds a planted offence."""
    text = "import torch\ndef f(x):\n    from pellucid.cli import main\n    import_module('pellucid.web')\n"
    module = source.Module("pellucid.core.planted", Path("planted.py"), text, ast.parse(text))
    found = {(item.name, item.at_import) for item in source.imports(module)}
    assert {("torch", True), ("pellucid.cli", False), ("pellucid.web", False)} <= found
    [(_, node)] = source.functions(module)
    assert not source.documented(node)
    assert not source.annotated(node)
    assert HOOKS.match("register_forward_pre_hook")
    assert HOOKS.match("register_full_backward_hook")


def test_types_are_checked_while_tests_run() -> None:
    """Without this, a lost option of pytest would switch the check off and nobody would see it."""
    from pellucid.core.errors import did_you_mean

    with pytest.raises(Exception, match=r"(?s)did_you_mean.*name"):
        did_you_mean(3, ["three"])  # type: ignore[arg-type]


def test_no_other_machine_can_be_reached() -> None:
    import socket

    with socket.socket() as probe, pytest.raises(RuntimeError, match="no network"):
        probe.connect(("192.0.2.1", 9))
