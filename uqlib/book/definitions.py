"""What a piece of Python says without being run: its definitions, the names that each uses, and what an import does.

A module is read once into a plain record, `{"imports", "definitions", "classes", "effects"}`, which JSON can hold. A piece
of it has the digest of its syntax tree, so that comments, layout and docstrings do not count, nor annotations of functions:

    {"digest": ..., "names": ["duos.fit_duo"], "mentions": ["weights"], "patterns": [], "imports": [], "whole": False}

`names` are those that it takes from outside of its own scopes, as far as attributes follow; `mentions` are attributes and
words in quotes, by which methods are found; `imports` are those inside of it, `[bound name, level, module, attribute]`.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

VERSION = 1  # of the record; another one makes stored records worthless
# Decorators that only wrap what they decorate. Any other one may register it somewhere, which is an effect of the import.
WRAPPING = frozenset(
    [
        "property",
        "setter",
        "getter",
        "deleter",
        "staticmethod",
        "classmethod",
        "cache",
        "lru_cache",
        "cached_property",
        "wraps",
        "total_ordering",
        "dataclass",
        "contextmanager",
        "asynccontextmanager",
        "abstractmethod",
        "overload",
        "final",
        "override",
        "runtime_checkable",
        "no_grad",
        "inference_mode",
        "jaxtyped",
        "singledispatch",
        "singledispatchmethod",
    ]
)
WHOLE = frozenset(("globals", "locals", "eval", "exec"))  # builtins that see every name of a module
DYNAMIC = ("import_module", "__import__")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
IMPORTS = (ast.Import, ast.ImportFrom)

Piece = dict[str, Any]
Record = dict[str, Any]


def read_module(source: str | ast.Module) -> Record:
    """The record of a module; a tree that is handed over is changed.

    Raises:
        SyntaxError: if it is not Python.
    """
    record: Record = {"imports": [], "definitions": {}, "classes": {}, "effects": []}
    for node in _Plain(top=True).visit(ast.parse(source) if isinstance(source, str) else source).body:
        _add_statement(record, node)
    definitions = {name: join_pieces(pieces) for name, pieces in record["definitions"].items()}
    return {**record, "definitions": definitions, "effects": join_pieces(record["effects"])}


def code_digest(tree: ast.Module) -> str:
    """The digest of a cell: of what it does, a text that it shows at its end included. The tree is changed."""
    return _sha(ast.dump(_Plain(top=False).visit(tree)))


def join_pieces(pieces: list[Piece]) -> Piece | None:
    """Several pieces as one: the branches of an `if`, a property and its setter, all effects of a module."""
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    joined = {
        key: sorted({each for piece in pieces for each in piece[key]}) for key in ("names", "mentions", "patterns")
    }
    imports = [each for piece in pieces for each in piece["imports"]]
    digest = _sha(" ".join(piece["digest"] for piece in pieces))
    return {"digest": digest, **joined, "imports": imports, "whole": any(piece["whole"] for piece in pieces)}


def _add_statement(record: Record, node: ast.stmt) -> None:
    """File one statement of a module: as import, definition, effect, or as definition and effect."""
    if isinstance(node, FUNCTIONS):
        _add(record, [node.name], node, effect=_registers(node))
    elif isinstance(node, ast.ClassDef):
        _add_class(record, node)
    elif isinstance(node, IMPORTS):
        record["imports"] += _bindings(node)
    elif _is_guard(node, "TYPE_CHECKING") or _is_guard(node, "__main__"):
        pass  # never runs when the module is imported
    else:
        record["imports"] += [
            each for part in _own_nodes([node]) if isinstance(part, IMPORTS) for each in _bindings(part)
        ]
        if not _only_imports(node):
            names = sorted(_bound([node]) - _imported([node]))
            assignment = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and names and names != ["_"]
            _add(record, names, node, effect=not assignment or _changes_others(node))


def _add(record: Record, names: Iterable[str], node: ast.AST, *, effect: bool) -> None:
    piece = _piece(node)
    for name in names:
        record["definitions"].setdefault(name, []).append(piece)
    if effect:
        record["effects"].append(piece)


def _add_class(record: Record, node: ast.ClassDef) -> None:
    """A class: its head, fields and dunder methods are one definition, each other method is one of its own."""
    methods = [each for each in node.body if isinstance(each, FUNCTIONS) and not _is_dunder(each.name)]
    hook = any(isinstance(each, FUNCTIONS) and each.name == "__init_subclass__" for each in node.body)
    bases = [".".join(_chain(base)) for base in map(_generic, node.bases)]
    about = {"methods": sorted({each.name for each in methods}), "bases": bases, "hook": hook}
    record["classes"][node.name] = about
    for each in methods:
        record["definitions"].setdefault(f"{node.name}.{each.name}", []).append(_piece(each))
    rest = [each for each in node.body if each not in methods] or [ast.Pass()]
    head = ast.ClassDef(node.name, node.bases, node.keywords, rest, node.decorator_list)
    _add(record, [node.name], head, effect=_registers(node) or bool(node.keywords))


def _generic(base: ast.expr) -> ast.expr:
    return base.value if isinstance(base, ast.Subscript) else base


def _registers(node: Any) -> bool:
    chains = [_chain(each.func if isinstance(each, ast.Call) else each) for each in node.decorator_list]
    return any(not chain or chain[-1] not in WRAPPING for chain in chains)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_guard(node: ast.stmt, word: str) -> bool:
    """Whether it is `if TYPE_CHECKING:` or `if __name__ == "__main__":`, with no other branch."""
    return isinstance(node, ast.If) and not node.orelse and word in ast.unparse(node.test) and (
        isinstance(node.test, ast.Name | ast.Attribute | ast.Compare)
    )  # fmt: skip


def _only_imports(node: ast.stmt) -> bool:
    parts = [part for name in ("body", "orelse", "finalbody", "handlers") for part in getattr(node, name, [])]
    leaves = [each for part in parts for each in (part.body if isinstance(part, ast.ExceptHandler) else [part])]
    compound = isinstance(node, ast.With | ast.If | ast.Try)
    return compound and all(isinstance(each, (*IMPORTS, ast.Pass)) or _only_imports(each) for each in leaves)


def _changes_others(node: ast.stmt) -> bool:
    """Whether an assignment also sets an attribute or an entry of something."""
    targets: list[ast.expr] = getattr(node, "targets", None) or [getattr(node, "target")]  # noqa: B009
    return any(isinstance(part, ast.Attribute | ast.Subscript) for target in targets for part in ast.walk(target))


def _bindings(node: ast.Import | ast.ImportFrom) -> list[list[Any]]:
    """[bound name, level, module, attribute] of each name; `import a.b` binds `a`, and its attribute is empty."""
    if isinstance(node, ast.ImportFrom):
        return [[each.asname or each.name, node.level, node.module or "", each.name] for each in node.names]
    found = []
    for each in node.names:
        found.append(
            [each.asname or each.name.split(".")[0], 0, each.name if each.asname else each.name.split(".")[0], ""]
        )
        if not each.asname:
            found.append(["", 0, each.name, ""])  # the module itself is loaded too
    return found


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of the scopes inside of it; the nodes that open these are included."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, FUNCTIONS):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.ClassDef):
            waiting += [*node.decorator_list, *node.bases, *node.keywords]
        elif isinstance(node, COMPREHENSIONS):
            waiting += [part for part in ast.walk(node) if isinstance(part, ast.NamedExpr)]  # binds outside of it
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _bound(body: Iterable[ast.AST]) -> set[str]:
    """The names that a scope binds."""
    found: set[str] = set()
    for node in _own_nodes(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)) or (
            isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name
        ):
            found.add(str(node.name))
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        elif isinstance(node, ast.NamedExpr):
            found.add(node.target.id)
        elif isinstance(node, IMPORTS):
            found |= {each[0] for each in _bindings(node)}
    return found


def _imported(body: Iterable[ast.AST]) -> set[str]:
    return {each[0] for node in _own_nodes(body) if isinstance(node, IMPORTS) for each in _bindings(node)}


def _declared(body: Iterable[ast.AST]) -> set[str]:
    return {name for node in _own_nodes(body) if isinstance(node, ast.Global) for name in node.names}


def _chain(node: ast.AST) -> list[str]:
    """["a", "b", "c"] of `a.b.c`; empty if it begins with something else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _piece(node: ast.AST) -> Piece:
    reader = _Reader()
    reader.visit(node)
    return {
        "digest": _sha(ast.dump(node)), "names": sorted(reader.names), "mentions": sorted(reader.mentions),
        "patterns": sorted(reader.patterns), "imports": reader.imports, "whole": reader.whole,
    }  # fmt: skip


class _Reader(ast.NodeVisitor):
    """Collects what a piece uses. A name that an inner scope binds is its own; a name that it imports is looked up there."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.mentions: set[str] = set()
        self.patterns: set[str] = set()
        self.imports: list[list[Any]] = []
        self.whole = False
        self.scopes: list[set[str]] = []

    def _is_own(self, name: str) -> bool:
        return any(name in scope for scope in self.scopes)

    def _use(self, chain: list[str]) -> None:
        if not self._is_own(chain[0]):
            self.names.add(".".join(chain))
            self.whole |= chain[0] in WHOLE

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self._use([node.id])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._use([node.target.id])
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.mentions.add(node.attr)
        if chain := _chain(node):
            self.mentions.update(chain[1:])
            self._use(chain)
        else:
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", node.value):
            self.mentions.update(node.value.split("."))

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += _bindings(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports += _bindings(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = _chain(node.func)
        if called[-1:] in (["getattr"], ["hasattr"], ["setattr"], ["delattr"]) and len(node.args) > 1:
            self._visit_getattr(node)
        elif called and called[-1] in DYNAMIC and node.args:
            self._visit_dynamic_import(node)
        else:
            self.generic_visit(node)

    def _visit_getattr(self, node: ast.Call) -> None:
        """`getattr(a, "b")` is `a.b`; a computed name may be any of a module, of `self`, or what its text begins with."""
        owner, name, *rest = node.args
        chain = _chain(owner)
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and chain:
            self.mentions.update([*chain[1:], name.value])
            self._use([*chain, name.value])
        else:
            self.visit(owner)
            self.visit(name)
            self.patterns.add(".*" if chain in (["self"], ["cls"]) else _pattern(name))
        self.patterns.discard("")
        for each in (node.func, *rest, *node.keywords):
            self.visit(each)

    def _visit_dynamic_import(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = node.args[0]
        module = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else "*"
        level = len(module) - len(module.lstrip("."))
        self.imports.append(["*whole*", level, module.lstrip("."), ""])

    def _visit_function(self, node: Any) -> None:
        for each in (*getattr(node, "decorator_list", []), *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(each)
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        body = node.body if isinstance(node.body, list) else [node.body]
        for each in (*(a.annotation for a in given if a), getattr(node, "returns", None)):
            if each is not None:
                self.visit(each)
        own = {a.arg for a in given if a} | _bound(body)
        self.scopes.append(own - _imported(body) - _declared(body))
        for each in body:
            self.visit(each)
        self.scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function

    def _visit_comprehension(self, node: Any) -> None:
        first = node.generators[0]
        self.visit(first.iter)  # in the scope around
        self.scopes.append({n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)})
        for generator in node.generators:
            for each in (generator.target, *generator.ifs, *([] if generator is first else [generator.iter])):
                self.visit(each)
        for each in (getattr(node, part, None) for part in ("elt", "key", "value")):
            if each is not None:
                self.visit(each)
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension


def _pattern(name: ast.expr) -> str:
    """A regular expression of the names that `f"_{kind}"` or `"_" + kind` may give; empty if any."""
    if isinstance(name, ast.JoinedStr):
        return "".join(re.escape(str(v.value)) if isinstance(v, ast.Constant) else r"\w*" for v in name.values)
    if isinstance(name, ast.BinOp) and isinstance(name.op, ast.Add):
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\w*" for p in (name.left, name.right)]
        return "".join(parts) if parts != [r"\w*"] * 2 else ""
    return ""


class _Plain(ast.NodeTransformer):
    """Takes out what does nothing: docstrings and other texts that stand alone, annotations of functions and variables."""

    def __init__(self, *, top: bool) -> None:
        self.top, self.classes = top, [False]

    def _body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        kept = [node for node in body if not _is_text(node)]
        return kept or [ast.Pass()]

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        if self.top:
            node.body = [each for each in node.body if not _is_text(each)]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.classes.append(True)
        self.generic_visit(node)
        self.classes.pop()
        node.body = self._body(node.body)
        return node

    def _function(self, node: Any) -> Any:
        self.classes.append(False)
        self.generic_visit(node)
        self.classes.pop()
        node.body = self._body(node.body)
        if not _registers(node):  # who registers it may read them
            node.returns = None
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            for each in filter(None, given):
                each.annotation = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if self.classes[-1]:  # fields of a dataclass
            return node
        if node.value is not None:
            return ast.Assign([node.target], node.value, lineno=node.lineno, col_offset=0)
        node.annotation = ast.Constant(None)
        return node


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
