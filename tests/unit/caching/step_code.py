"""What the code of a cached step does, as a hash that comments and names leave as it is.

    python -m tests.unit.caching.step_code --record

records the digest and version of every step. Run it after a change of a step's code: first raise
the step's version if the arithmetic changed, so that what was cached by the old code is not used.

The digest starts at the functions that a `Step` names and follows every name they reach within the
package. Docstrings, comments, annotations, the texts of log messages and errors, and the names of
functions and variables do not count. What an object's attribute refers to is not known from the
source: the class of it counts where its name is reached.
"""

import argparse
import ast
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import busi_pipeline
from busi_pipeline.caching.fingerprints import Step

RECORD = Path(__file__).with_name("step_digests.json")
# What these hold decides no value: messages, progress bars, and settings, which fingerprints name.
EXCLUDED_MODULES = frozenset(
    f"{busi_pipeline.__name__}.{name}" for name in ("errors", "progress", "config.schemas")
)
EXCLUDED_NAMES = frozenset({f"{busi_pipeline.__name__}.models.backbones.BACKBONES"})
_ROOT = Path(busi_pipeline.__file__).parent
_PROGRESS = f"{busi_pipeline.__name__}.progress"
_LOGGERS = frozenset({"logger", "logging", "warnings"})

ReadSource: TypeAlias = Callable[[str], str | None]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


class Definition(NamedTuple):
    """A function, class or constant of a module: the statement that makes it."""

    module: str
    statement: ast.stmt

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from other definitions."""
        return self.module, self.statement.lineno


class External(NamedTuple):
    """A name of a library, or one whose definition does not count."""

    name: str


class Module(NamedTuple):
    """A module of the package."""

    name: str


Target: TypeAlias = Definition | External | Module


def read_source(module: str) -> str | None:
    """Return the source of a module of this package, or None where there is no such module."""
    path = _ROOT.parent.joinpath(*module.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file.read_text()
    return None


def digest_code(
    code: tuple[str, ...], read: ReadSource = read_source, package: str = busi_pipeline.__name__
) -> str:
    """Return the SHA-256 of what the code does.

    Args:
        code: `module:function`, where it begins.
        read: gives the source of a module.
        package: names outside it are those of libraries.

    Raises ValueError where a function is not there.
    """
    return hashlib.sha256("\n".join(describe_code(code, read, package)).encode()).hexdigest()


def describe_code(
    code: tuple[str, ...], read: ReadSource = read_source, package: str = busi_pipeline.__name__
) -> list[str]:
    """Return the normalised definitions that are reached, in order of first appearance."""
    sources = _Sources(read, package)
    reached = _Reached()
    for entry in code:
        module, _, function = entry.partition(":")
        target = sources.resolve(module, function)
        if not isinstance(target, Definition):
            raise ValueError(f"{entry} is no function of {package}")
        reached.number(target)
    described: list[str] = []
    while len(described) < len(reached.definitions):
        definition = reached.definitions[len(described)]
        tree = _Normaliser(definition.module, sources, reached).normalise(definition.statement)
        described.append(_dump(tree))
    return described


def _dump(node: Any) -> str:
    """Return a tree as text, as `ast.dump` does, but the same under every version of Python."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    left_out = {"ctx", "kind", "type_comment", "type_params"}
    fields = [
        f"{name}={_dump(value)}"
        for name, value in ast.iter_fields(node)
        if name not in left_out and value is not None and value != []
    ]
    return f"{type(node).__name__}({', '.join(fields)})"


class _Reached:
    """Definitions in order of first appearance."""

    def __init__(self) -> None:
        self.definitions: list[Definition] = []
        self._numbers: dict[tuple[str, int], int] = {}

    def number(self, definition: Definition) -> int:
        """Return the number of a definition; a new one is added."""
        if definition.key not in self._numbers:
            self._numbers[definition.key] = len(self.definitions)
            self.definitions.append(definition)
        return self._numbers[definition.key]


class _Sources:
    """The modules of the package, and what their names refer to."""

    def __init__(self, read: ReadSource, package: str):
        self._read, self._package = read, package
        self._bindings = cache(self._list_bindings)
        self.is_module = cache(lambda name: self.is_inside(name) and read(name) is not None)

    def is_inside(self, module: str) -> bool:
        """Whether a module is of the package."""
        return module == self._package or module.startswith(f"{self._package}.")

    def resolve(self, module: str, name: str) -> Target | None:
        """Return what a name at the top of a module refers to; None where it is unknown there."""
        if module in EXCLUDED_MODULES or f"{module}.{name}" in EXCLUDED_NAMES:
            return External(f"{module}.{name}")
        found = self._bindings(module).get(name)
        if found is not None:
            return found if isinstance(found, Definition) else self.follow(found)
        return Module(f"{module}.{name}") if self.is_module(f"{module}.{name}") else None

    def follow(self, imported: tuple[str, str] | str) -> Target:
        """Return what an import refers to: a module, or (module, name)."""
        if isinstance(imported, str):
            inside = self.is_inside(imported) and imported not in EXCLUDED_MODULES
            return Module(imported) if inside else External(imported)
        module, name = imported
        if not self.is_inside(module):
            return External(f"{module}.{name}")
        target = self.resolve(module, name)
        if target is None:
            raise ValueError(f"{module} has no {name}")
        return target

    def list_imports(self, statement: ast.stmt, module: str) -> dict[str, tuple[str, str] | str]:
        """Return {name: what is imported under it} of an import statement of this module."""
        if isinstance(statement, ast.Import):
            return {
                alias.asname or alias.name.partition(".")[0]: alias.name
                if alias.asname
                else alias.name.partition(".")[0]
                for alias in statement.names
            }
        if isinstance(statement, ast.ImportFrom):
            origin = self._find_origin(statement, module)
            return {alias.asname or alias.name: (origin, alias.name) for alias in statement.names}
        return {}

    def _find_origin(self, statement: ast.ImportFrom, module: str) -> str:
        if not statement.level:
            return statement.module or ""
        below = [statement.module] if statement.module else [a.name for a in statement.names]
        is_package = any(self.is_module(f"{module}.{name}") for name in below)
        parts = module.split(".")
        above = parts[: len(parts) - statement.level + is_package]
        return ".".join([*above, *([statement.module] if statement.module else [])])

    def _list_bindings(self, module: str) -> dict[str, Any]:
        source = self._read(module)
        if source is None:
            raise ValueError(f"there is no module {module}")
        bindings: dict[str, Any] = {}
        for statement in _flatten(ast.parse(source).body):
            bindings |= self.list_imports(statement, module)
            definition = Definition(module, statement)
            if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
                bindings[statement.name] = definition
            for name in _list_targets(statement):
                bindings[name] = definition
        return bindings


def _flatten(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements at the top of a module, those under `if` and `try` as well."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from _flatten(getattr(statement, field, []))
        else:
            yield statement


def _list_targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Assign):
        roots: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        roots = [statement.target]
    else:
        return []
    return [node.id for root in roots for node in ast.walk(root) if isinstance(node, ast.Name)]


class _Scope:
    """Names of a function: those bound in it, and what was imported in it."""

    def __init__(self, names: set[str], imports: Mapping[str, tuple[str, str] | str]):
        self.names, self.imports = names, imports


class _Bound(ast.NodeVisitor):
    """Collects the names that a function's own statements bind, not those of functions within."""

    def __init__(self, sources: _Sources, module: str):
        self._sources, self._module = sources, module
        self.names: set[str] = set()
        self.imports: dict[str, tuple[str, str] | str] = {}

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store | ast.Del):
            self.names.add(node.id)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.imports |= self._sources.list_imports(node, self._module)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports |= self._sources.list_imports(node, self._module)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.add(node.name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.add(node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def visit_comprehension_scope(self, node: ast.AST) -> None:
        # Only what `:=` binds is the function's.
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.visit_Name(inner.target)

    visit_ListComp = visit_SetComp = visit_comprehension_scope  # noqa: N815
    visit_GeneratorExp = visit_DictComp = visit_comprehension_scope  # noqa: N815


class _Normaliser(ast.NodeTransformer):
    """Rewrites one definition so that only what it computes is left."""

    def __init__(self, module: str, sources: _Sources, reached: _Reached):
        self._module, self._sources, self._reached = module, sources, reached
        self._scopes: list[_Scope] = []
        # Names in the body of the class at hand: others use them as attributes, by name.
        self._attributes: set[str] = set()
        self._tokens: dict[tuple[_Scope, str], str] = {}

    def normalise(self, statement: ast.stmt) -> ast.AST:
        """Return the definition without its own name."""
        copied = deepcopy(statement)
        if isinstance(copied, (*_FUNCTIONS, ast.ClassDef)):
            copied.name = "_"
        elif isinstance(copied, ast.Assign | ast.AnnAssign | ast.AugAssign):
            value = copied.value
            return ast.Expr(self.visit(value)) if value is not None else ast.Pass()
        return self.visit(copied)

    # Names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self._name(node.id), node.ctx)

    def _name(self, name: str) -> str:
        if not self._scopes and name in self._attributes:
            return name
        for scope in reversed(self._scopes):
            if name in scope.names:
                return self._tokens.setdefault((scope, name), f"local {len(self._tokens)}")
            if name in scope.imports:
                return self._describe(self._sources.follow(scope.imports[name]), name)
        return self._describe(self._sources.resolve(self._module, name), name)

    def _describe(self, target: Target | None, name: str) -> str:
        if target is None:
            return name  # of Python itself
        if isinstance(target, Definition):
            number = self._reached.number(target)
            targets = _list_targets(target.statement)
            place = f".{targets.index(name)}" if len(targets) > 1 and name in targets else ""
            return f"defined {number}{place}"
        return target.name if isinstance(target, External) else f"module {target.name}"

    def _find(self, node: ast.expr) -> Target | None:
        """Return what a name or an attribute of a module refers to, where that is known."""
        if isinstance(node, ast.Name):
            for scope in reversed(self._scopes):
                if node.id in scope.names:
                    return None
                if node.id in scope.imports:
                    return self._sources.follow(scope.imports[node.id])
            return self._sources.resolve(self._module, node.id)
        if isinstance(node, ast.Attribute):
            above = self._find(node.value)
            if isinstance(above, Module):
                return self._sources.resolve(above.name, node.attr)
        return None

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        target = self._find(node)
        if target is not None:
            return ast.Name(self._describe(target, node.attr), node.ctx)
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

    # What does not count

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if self._is_message(node.value) else self.generic_visit(node)

    def _is_message(self, node: ast.expr) -> bool:
        if not isinstance(node, ast.Call):
            return isinstance(node, ast.Constant)  # a docstring, or a text that nobody reads
        root = node.func
        while isinstance(root, ast.Attribute):
            root = root.value
        return isinstance(root, ast.Name) and root.id in _LOGGERS

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(self.visit(error) if error else None, None)

    def visit_Import(self, node: ast.Import) -> None:
        return None  # known by what is used of it

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Global(self, node: ast.Global) -> None:
        return None

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is not None:
            return ast.Assign([self.visit(node.target)], self.visit(node.value))
        # A field of a class; a variable that is only declared is nothing.
        is_local = bool(self._scopes)
        return None if is_local else ast.Expr(self.visit(node.target))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = self._name(node.name) if node.name else None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._name(node.arg), None)

    # Calls

    def visit_Call(self, node: ast.Call) -> ast.AST:
        target = self._find(node.func)
        if isinstance(target, External) and target.name.startswith(f"{_PROGRESS}.") and node.args:
            return self.visit(node.args[0])
        function = self.visit(node.func)
        args = [self.visit(argument) for argument in node.args]
        keywords = [
            ast.keyword(_number_parameter(target, keyword.arg), self.visit(keyword.value))
            for keyword in node.keywords
        ]
        return ast.Call(function, args, keywords)

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        decorators = [self.visit(decorator) for decorator in node.decorator_list]
        self._visit_defaults(node.args)
        name = self._name(node.name) if self._scopes else node.name
        self._enter(node.args, node.body)
        arguments = self._visit_arguments(node.args)
        body = self._visit_body(node.body)
        self._scopes.pop()
        return ast.FunctionDef(name, arguments, body, decorators)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._visit_defaults(node.args)
        self._enter(node.args, [])
        made = ast.Lambda(self._visit_arguments(node.args), self.visit(node.body))
        self._scopes.pop()
        return made

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        name = self._name(node.name) if self._scopes else node.name
        made = ast.ClassDef(
            name,
            [self.visit(base) for base in node.bases],
            [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords],
            [],
            [self.visit(decorator) for decorator in node.decorator_list],
        )
        bound = _Bound(self._sources, self._module)
        for statement in node.body:
            bound.visit(statement)
        outer = self._scopes, self._attributes
        self._scopes, self._attributes = [], bound.names
        made.body = self._visit_body(node.body)
        self._scopes, self._attributes = outer
        return made

    def _visit_comprehension(self, node: Any) -> ast.AST:
        bound = _Bound(self._sources, self._module)
        for generator in node.generators:
            bound.visit(generator.target)
        self._scopes.append(_Scope(bound.names, {}))
        made = self.generic_visit(node)
        self._scopes.pop()
        return made

    visit_ListComp = visit_SetComp = _visit_comprehension  # noqa: N815
    visit_GeneratorExp = visit_DictComp = _visit_comprehension  # noqa: N815

    def _enter(self, arguments: ast.arguments, body: list[ast.stmt]) -> None:
        bound = _Bound(self._sources, self._module)
        for statement in body:
            bound.visit(statement)
        named = {node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)}
        self._scopes.append(_Scope(bound.names | named, bound.imports))

    def _visit_defaults(self, arguments: ast.arguments) -> None:
        """Visit what is evaluated outside the function."""
        arguments.defaults = [self.visit(value) for value in arguments.defaults]
        arguments.kw_defaults = [
            self.visit(value) if value else None for value in arguments.kw_defaults
        ]

    def _visit_arguments(self, arguments: ast.arguments) -> ast.arguments:
        for field in ("posonlyargs", "args", "kwonlyargs"):
            setattr(arguments, field, [self.visit(one) for one in getattr(arguments, field)])
        for field in ("vararg", "kwarg"):
            one = getattr(arguments, field)
            setattr(arguments, field, self.visit(one) if one else None)
        return arguments

    def _visit_body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        visited = [made for statement in body if (made := self.visit(statement)) is not None]
        return visited or [ast.Pass()]


def _number_parameter(target: Target | None, name: str | None) -> str | None:
    """Return the number of a parameter of a function of the package, else its name."""
    if isinstance(target, Definition) and isinstance(target.statement, _FUNCTIONS):
        arguments = target.statement.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        if name in names:
            return f"parameter {names.index(name)}"
    return name


def find_steps() -> dict[str, Step]:
    """Return {name: step} of all that are declared at the top of a module of the package.

    Raises ValueError where two have one name.
    """
    steps: dict[str, Step] = {}
    for path in sorted(_ROOT.rglob("*.py")):
        if not re.search(r"\bStep\b", path.read_text()):
            continue  # TensorFlow is not to be imported for nothing
        parts = path.relative_to(_ROOT.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for value in vars(module).values():
            if isinstance(value, Step) and steps.setdefault(value.name, value) is not value:
                raise ValueError(f"two steps are named {value.name}")
    return steps


def describe_steps(read: ReadSource = read_source) -> dict[str, dict[str, Any]]:
    """Return {step: {version, digest}} as it is now."""
    return {
        name: {"version": step.version, "digest": digest_code(step.code, read)}
        for name, step in sorted(find_steps().items())
    }


def main() -> None:
    """Print how the steps differ from their record, or record them."""
    parser = argparse.ArgumentParser(description="Digests of the code of cached steps.")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    record = parser.parse_args().record
    now = describe_steps()
    before = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    changed = sorted(name for name in now | before if now.get(name) != before.get(name))
    print("changed:", ", ".join(changed) or "nothing")
    if record:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")


if __name__ == "__main__":
    main()
