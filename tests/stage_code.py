"""The code that a stage uses: the definitions that its script reaches, wherever they stand.

What is reached is followed name by name through the library. A definition counts with its body, without
docstrings, comments, imports, and the names of the modules that others stand in: moving code changes nothing.
A class counts whole. So does a module that is imported by a name made at run time, and one that is used other
than by its names.
"""

import ast
import copy
import hashlib
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
#: Checks, reports progress, or says where to read and write: no part in results.
NO_PART = ("errors", "lazy", "execution", "cli", "config.")
PART = ("config.studies",)  # of what is above
#: Files that a stage reads beside its code: the page's template, style, script and captions.
BESIDE = {"report": "../report"}


class Module:
    """A file's top-level definitions by name, and what its imports bind."""

    def __init__(self, tree):
        self.defined, self.bound, self.loose, self.known = {}, {}, [], {}
        for node in tree.body:
            if isinstance(
                node, ast.Import | ast.ImportFrom | ast.If
            ):  # the last for type checkers, of lazy names
                imports(node, self.bound)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.defined.setdefault(node.name, []).append(node)
                if any(isinstance(part, ast.Name) for d in node.decorator_list for part in ast.walk(d)):
                    self.loose.append(node)  # perhaps entered in a list by its decorator
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name):
                            self.defined.setdefault(part.id, []).append(node)
            elif not is_text(node):
                self.loose.append(node)


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def imports(top, bound):
    """Enter what the imports in a piece of code bind: a dotted name within the library."""
    for node in ast.walk(top):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "valleys":
            base = node.module.split(".")[1:]
            bound |= {alias.asname or alias.name: ".".join([*base, alias.name]) for alias in node.names}


def library(scripts=SCRIPTS):
    """Every module of the library by its name within it; a package is its ``__init__.py``."""
    top = scripts / "valleys"
    named = {path.relative_to(top).with_suffix("").parts: path for path in sorted(top.rglob("*.py"))}
    named = {parts[:-1] if parts[-1] == "__init__" else parts: path for parts, path in named.items()}
    return {
        ".".join(parts): Module(ast.parse(path.read_text(encoding="utf-8"))) for parts, path in named.items()
    }


class Reached:
    """What a script reaches: the text of definitions by the module and name they have."""

    def __init__(self, modules, script):
        self.modules, self.found, self.opened = modules, {}, set()
        tree = ast.parse(script.read_text(encoding="utf-8"))
        bound = {}
        imports(tree, bound)
        self.script = self.bare(tree, bound)
        for target in self.uses(tree, bound, ""):
            self.reach(*target)

    def bare(self, node, bound):
        return dump(node, {name for name, what in bound.items() if what in self.modules})

    def uses(self, node, bound, module):
        """What a piece of code of a module names: pairs of a module and a name in it, None for all of it."""
        bound, found = dict(bound), set()
        imports(node, bound)
        parts = {id(child.value) for child in ast.walk(node) if isinstance(child, ast.Attribute)}
        for child in ast.walk(node):
            if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
                found.add((bound.get(child.value.id), child.attr))
            elif isinstance(child, ast.Name) and child.id in bound:
                what = bound[child.id]
                if what not in self.modules:
                    found.add(what.rpartition(".")[::2])
                elif id(child) not in parts:
                    found.add((what, None))
            elif isinstance(child, ast.Name):
                found.add((module, child.id))
            elif isinstance(child, ast.Constant) and isinstance(child.value, str):
                found |= {(name, None) for name in self.below(child.value)}
        return {(name, symbol) for name, symbol in found if name in self.modules and not no_part(name)}

    def below(self, text):
        """Modules below text like ``valleys.data.sources.``, to which a name is added at run time."""
        is_start = text.startswith("valleys.") and text.endswith(".")
        return [name for name in self.modules if is_start and f"valleys.{name}".startswith(text)]

    def reach(self, name, symbol):
        module = self.modules[name]
        if symbol is None:
            for each in module.defined:
                self.reach(name, each)
        elif symbol in module.defined and (name, symbol) not in self.found:
            if symbol not in module.known:
                nodes = module.defined[symbol]
                text = "\n".join(self.bare(node, module.bound) for node in nodes)
                module.known[symbol] = text, set().union(*(self.uses(n, module.bound, name) for n in nodes))
            self.found[name, symbol], targets = module.known[symbol]
            for target in [*self.on_import(name), *targets]:
                self.reach(*target)
        elif symbol in module.bound:  # a name that a package passes on
            where, _, passed = module.bound[symbol].rpartition(".")
            if where in self.modules and not no_part(where):
                self.reach(where, passed)

    def on_import(self, name):
        """What runs when a module is imported, whatever is taken from it."""
        module = self.modules[name]
        if name in self.opened:
            return []
        self.opened.add(name)
        targets = []
        for k, node in enumerate(module.loose):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                decorators = {
                    p.id for d in node.decorator_list for p in ast.walk(d) if isinstance(p, ast.Name)
                }
                if decorators & (module.defined.keys() | module.bound.keys()):
                    targets.append((name, node.name))
            else:
                self.found[name, f"statement {k}"] = self.bare(node, module.bound)
                targets += self.uses(node, module.bound, name)
        return targets


def no_part(name):
    return f"{name}.".startswith(tuple(f"{n.rstrip('.')}." for n in NO_PART)) and name not in PART


class Bare(ast.NodeTransformer):
    """Code without docstrings and imports, and without the module before a name."""

    def __init__(self, aliases):
        self.aliases = aliases

    def generic_visit(self, node):
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not is_text(n) and not isinstance(n, ast.Import | ast.ImportFrom)]
        return node

    def visit_Attribute(self, node):
        if isinstance(node.value, ast.Name) and node.value.id in self.aliases:
            return ast.Name(node.attr, node.ctx)
        return self.generic_visit(node)


def dump(node, aliases):
    return ast.dump(Bare(aliases).visit(copy.deepcopy(node)))


def reached(stage, scripts=SCRIPTS, modules=None):
    """The names that a stage's script reaches, as ``module.name``."""
    found = Reached(modules or library(scripts), scripts / f"{stage}.py").found
    return {f"{module}.{name}" for module, name in found}


def stage_hash(stage, scripts=SCRIPTS, modules=None):
    """A hash of the code of all definitions that a stage uses."""
    code = Reached(modules or library(scripts), scripts / f"{stage}.py")
    beside = sorted((scripts / BESIDE[stage]).glob("*")) if stage in BESIDE else []
    texts = [code.script, *sorted(code.found.values()), *(path.read_text("utf-8") for path in beside)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
