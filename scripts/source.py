"""The package read as syntax trees: who imports whom, what is public, what is documented and annotated."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "pellucid"

# From the lowest to the highest: a layer imports itself and those before it.
LAYERS = (
    "core",
    "render",
    "models",
    "engine",
    "zoo",
    "generators",
    "methods",
    "evaluate",
    "studies",
    "explain",
    "store",
    "scale",
    "web",
    "cli",
)
# On top of everything: nothing else in the package imports them, except the command line, which starts the server.
TOP = ("__main__", "cli", "web")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One import inside the package: the dotted name, its line, and whether it runs when the module is imported."""

    name: str
    line: int
    at_import: bool


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, path relative to the project, text and tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        """Return the layer this module belongs to, or the empty string for the package itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the package, sorted by name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("pellucid", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, path.relative_to(ROOT), text, ast.parse(text)))
    return tuple(found)


def imports(module: Module) -> tuple[Import, ...]:
    """Return what a module imports, as dotted names: also in functions, under TYPE_CHECKING and by literal name."""
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend(Import(name, node.lineno, at_import) for name in _from(node, module))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, at_import)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                found.append(Import(named.value, node.lineno, at_import))
        else:
            inside = at_import and not isinstance(node, Function | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                visit(child, inside)

    visit(module.tree, True)
    return tuple(found)


def _from(node: ast.ImportFrom, module: Module) -> list[str]:
    """Resolve `from x import a, b` to modules where a and b are modules, and to x otherwise."""
    base = node.module or ""
    if node.level:
        package = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
    if not base.startswith("pellucid"):
        return [base]
    names = {m.name for m in modules()}
    return sorted({f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base for alias in node.names})


def import_graph() -> nx.DiGraph:
    """Return the graph of imports between modules, the one exception left out."""
    graph = nx.DiGraph()
    names = {module.name for module in modules()}
    for module in modules():
        graph.add_node(module.name)
        for item in imports(module):
            target = item.name if item.name in names else item.name.rpartition(".")[0]
            if target in names and target != module.name and not reaches_up(module, item):
                graph.add_edge(module.name, target)
    return graph


def reaches_up(module: Module, item: Import) -> bool:
    """Tell whether this is the one exception: at call time, results ask for what draws, saves and tabulates them."""
    return (
        module.name == "pellucid.core.display"
        and not item.at_import
        and item.name.startswith(("pellucid.render.", "pellucid.core."))
    )


def cycles() -> list[tuple[str, ...]]:
    """Return every group of modules that import each other."""
    groups = nx.strongly_connected_components(import_graph())
    return sorted(tuple(sorted(group)) for group in groups if len(group) > 1)


def functions(module: Module) -> list[tuple[str, Function]]:
    """Return the functions and methods of a module with their qualified names, those inside functions left out."""
    found: list[tuple[str, Function]] = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, Function):
                found.append((prefix + node.name, node))
            elif isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.If | ast.Try | ast.With):
                visit(node.body, prefix)

    visit(module.tree.body, "")
    return found


def public_functions() -> list[tuple[Module, str, Function]]:
    """Return every public function and method of the package: no part of its name begins with an underscore."""
    return [
        (module, name, node)
        for module in modules()
        for name, node in functions(module)
        if not any(part.startswith("_") for part in (*module.name.split("."), *name.split(".")))
    ]


def documented(node: Function) -> bool:
    """Tell whether a function has a docstring."""
    return bool(ast.get_docstring(node))


def annotated(node: Function) -> bool:
    """Tell whether all parameters and the result of a function have a type."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    wanted = [argument for argument in named if argument is not None and argument.arg not in ("self", "cls")]
    return node.returns is not None and all(argument.annotation is not None for argument in wanted)


def share(test: str) -> tuple[float, int, list[str]]:
    """Return the share of public functions that are `documented` (or `annotated`), their number, and the others."""
    check = {"documented": documented, "annotated": annotated}[test]
    everything = public_functions()
    lacking = [f"{module.path}:{node.lineno} {name}" for module, name, node in everything if not check(node)]
    return 1 - len(lacking) / max(len(everything), 1), len(everything), lacking


def method_files() -> tuple[Module, ...]:
    """Return the method files: modules in a family folder of `methods/` whose name has no leading underscore."""
    return tuple(
        module
        for module in modules()
        if module.name.startswith("pellucid.methods.")
        and len(module.name.split(".")) == 4
        and not module.name.split(".")[-1].startswith("_")
    )
