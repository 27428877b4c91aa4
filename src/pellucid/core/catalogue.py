"""What the program can do, read from source text: methods, metrics, studies and views, none of them imported.

The directory is the registry: a file `methods/<family>/<name>.py` holds one public function `<name>` under a decorator
of `pellucid.core.metadata`, whose keywords are literals. Packages of others join by an entry point of the group
`pellucid.methods` whose value is `package.module:function`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from pellucid.core.errors import FileError, PellucidError
from pellucid.core.params import describe, resolve

PACKAGE = Path(__file__).resolve().parent.parent
ROOTS = {"methods": "method", "evaluate": "metric", "studies": "study"}
GROUP = "pellucid.methods"
MAP = Path(__file__).resolve().parent / "map.json"
VIEWS = PACKAGE / "web" / "views.json"


@dataclass(frozen=True)
class Entry:
    """One method, metric, study or view, as its source describes it.

    `parameters` has one mapping per parameter: `name`, `annotation` (its text), `required`, `default` (its value, or
    its text where it is no literal), `keyword` (whether it must be named), `doc` (from the docstring) and what
    `pellucid.core.params.describe` says of the type.
    """

    name: str
    kind: str
    family: str
    module: str
    summary: str
    rows: tuple[str, ...] = ()
    paper: str = ""
    takes: str = ""
    produces: str = ""
    axes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    cost: str = ""
    better: str = ""
    chance: float | int | None = None
    patent: str = ""
    parameters: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))


_cache: dict[Path, tuple[int, Entry | None]] = {}


def entries() -> list[Entry]:
    """Return everything the program can do, sorted by kind, family and name.

    Raises:
        FileError: A file breaks the rules of the registry; the sentence names it.
    """
    found: dict[str, tuple[Entry, str]] = {}
    for entry, place in (*_own(), *_installed(), *_views()):
        if entry.name in found:
            raise FileError(
                f"The name {entry.name!r} is taken twice, by {found[entry.name][1]} and {place}; rename one of them."
            )
        found[entry.name] = (entry, place)
    return sorted((entry for entry, _ in found.values()), key=lambda entry: (entry.kind, entry.family, entry.name))


def find_entry(name: str) -> Entry | None:
    """Return the entry of this name, or None; looks at one file only where the name is one of the project's own."""
    if name.isidentifier() and not name.startswith("_"):
        for root in ROOTS:
            for path in sorted((PACKAGE / root).rglob(f"{name}.py")):
                entry = _read(path, root)
                if entry is not None:
                    return entry
    return next((entry for entry in entries() if entry.name == name), None)


def coverage() -> list[dict[str, Any]]:
    """Return every row of the map with `delivered_by`: the names of the entries that carry its id."""
    carriers: dict[str, list[str]] = {}
    for entry in entries():
        for row in entry.rows:
            carriers.setdefault(row, []).append(entry.name)
    return [{**row, "delivered_by": carriers.get(row["id"], [])} for row in map_rows()]


def map_rows() -> list[dict[str, Any]]:
    """Return the rows of the map: id, technique, paper, section, and the reason where a row cannot be delivered."""
    rows: list[dict[str, Any]] = json.loads(MAP.read_text(encoding="utf-8"))
    return rows


def _own() -> Iterator[tuple[Entry, str]]:
    for root in ROOTS:
        for path in sorted((PACKAGE / root).rglob("*.py")):
            entry = _read(path, root)
            if entry is not None:
                yield entry, _place(path)


def _read(path: Path, root: str) -> Entry | None:
    """Read one file of the project, from memory where it has not changed; None for private files."""
    if any(part.startswith("_") for part in path.relative_to(PACKAGE).parts):
        return None
    stamp = path.stat().st_mtime_ns
    if _cache.get(path, (None, None))[0] != stamp:
        relative = path.relative_to(PACKAGE / root).with_suffix("").parts
        module = ".".join(("pellucid", root, *relative))
        entry = read_source(path, module, ".".join(relative[:-1]) or root)
        if entry is None and root != "evaluate":
            raise FileError(f"{_place(path)} has no function under a decorator of pellucid.core.metadata; add one, or "
                "begin "
                            "the file's name with an underscore.")  # fmt: skip
        if entry is not None and entry.name != path.stem:
            raise FileError(f"{_place(path)} defines {entry.name!r}; name the file and its function alike.")
        if entry is not None and entry.kind != ROOTS[root]:
            raise FileError(f"{_place(path)} is decorated as a {entry.kind}; files in {root}/ use @{ROOTS[root]}.")
        _cache[path] = (stamp, entry)
    return _cache[path][1]


def _place(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else str(path)


def read_source(path: Path, module: str, family: str, function: str = "") -> Entry | None:
    """Read the decorated function of a file, or None when it has none.

    Args:
        path: The file.
        module: Its dotted name, for the entry.
        family: The folder that the entry belongs to.
        function: The function's name where the file may hold others (packages of others); by default it must be the one
            public function of the file.

    Raises:
        FileError: The file does not parse, has several public functions, or metadata that are no literals.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise FileError(f"{_place(path)} is not valid Python ({error}); correct it.") from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    if function:
        functions = [node for node in functions if node.name == function]
    decorated = [(node, call) for node in functions for call in node.decorator_list if _kind(call)]
    if not decorated:
        return None
    if len(functions) > 1:
        names = ", ".join(node.name for node in functions)
        raise FileError(
            f"{_place(path)} has the public functions {names}; keep one and begin the others with an underscore."
        )
    node, call = decorated[0]
    assert isinstance(call, ast.Call)
    return _entry(node, call, path, module, family, _aliases(tree))


def _kind(decorator: ast.expr) -> str:
    """Return "method", "metric" or "study" for a decorator call of that name, else the empty string."""
    if not isinstance(decorator, ast.Call):
        return ""
    name = ast.unparse(decorator.func).rpartition(".")[2]
    return name if name in ROOTS.values() else ""


def _entry(
    node: ast.FunctionDef, call: ast.Call, path: Path, module: str, family: str, aliases: dict[str, str]
) -> Entry:
    known = set(Entry.__dataclass_fields__) - {"name", "kind", "family", "module", "summary", "parameters"}
    metadata: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg not in known:
            raise FileError(f"{_place(path)} passes {keyword.arg or '**'!r} to its decorator, which it does not know.")
        try:
            metadata[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise FileError(
                f"{_place(path)} gives {keyword.arg}={ast.unparse(keyword.value)}, which is no literal; "
                "write the value itself."
            ) from None
    text = ast.get_docstring(node) or ""
    return Entry(
        name=node.name,
        kind=_kind(call),
        family=family,
        module=module,
        summary=summary(text),
        parameters=tuple(_parameters(node, aliases, argument_docs(text))),
        **metadata,
    )


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Return the names that the file gives to types by a plain assignment, such as `Order = Literal["a", "b"]`."""
    return {
        target.id: ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and len(node.targets) == 1
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _parameters(node: ast.FunctionDef, aliases: dict[str, str], docs: dict[str, str]) -> Iterator[dict[str, Any]]:
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    for index, (argument, default) in enumerate(pairs):
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        yield {
            "name": argument.arg,
            "annotation": annotation,
            "required": default is None,
            "default": None if default is None else _literal(default),
            "keyword": index >= len(plain),
            "doc": docs.get(argument.arg, ""),
            **_description(annotation, aliases),
        }


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return list(cast("Sequence[Any]", value)) if isinstance(value, tuple) else value


def _description(annotation: str, aliases: dict[str, str]) -> dict[str, Any]:
    try:
        return describe(resolve(annotation or "Any", aliases))
    except LookupError:
        return describe(resolve("Any"))


def summary(docstring: str) -> str:
    """Return the first sentence of a docstring on one line."""
    first = " ".join(docstring.split("\n\n")[0].split())
    end = first.find(". ")
    return first if end < 0 else first[: end + 1]


def argument_docs(docstring: str) -> dict[str, str]:
    """Return what a Google-style docstring says of each argument."""
    docs: dict[str, str] = {}
    lines = docstring.splitlines()
    start = next((index for index, line in enumerate(lines) if line.strip() == "Args:"), len(lines))
    name = ""
    for line in lines[start + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth == 0:
            break
        head, colon, rest = line.strip().partition(":")
        if depth == 4 and colon and head.split(" ")[0].isidentifier():
            name = head.split(" ")[0]
            docs[name] = rest.strip()
        elif name and line.strip():
            docs[name] += " " + line.strip()
    return docs


def _installed() -> Iterator[tuple[Entry, str]]:
    """Read the methods of other installed packages; one that cannot be read is left out with a warning."""
    for point in entry_points(group=GROUP):
        try:
            path = _source_of(point)
            entry = read_source(
                path, point.module, f"{point.module.split('.')[0]}", point.attr or point.module.split(".")[-1]
            )
            if entry is None:
                raise FileError(f"{path} has no decorated function {point.attr!r}.")
        except PellucidError as error:
            package = point.dist.name if point.dist else point.module
            warnings.warn(f"The methods of the package {package!r} are left out: {error}", stacklevel=2)
            continue
        yield entry, str(path)


def _source_of(point: EntryPoint) -> Path:
    """Find a module's file without importing its package, which `find_spec` of a dotted name would do."""
    top, *rest = point.module.split(".")
    spec = importlib.util.find_spec(top)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    tried = [Path(spec.origin)] if spec and spec.origin and not rest else []
    for place in places:
        tried += [place.joinpath(*rest).with_suffix(".py"), place.joinpath(*rest, "__init__.py")] if rest else []
    for path in tried:
        if path.is_file():
            return path
    raise FileError(f"the source of {point.module!r} was not found; install the package with its .py files.")


def _views() -> Iterator[tuple[Entry, str]]:
    """Read the views of the web page, a list of {name, summary, rows} beside its sources, once there is one."""
    if VIEWS.is_file():
        for view in json.loads(VIEWS.read_text(encoding="utf-8")):
            yield Entry(view["name"], "view", "web", "", view["summary"], tuple(view["rows"])), _place(VIEWS)
