"""Callables that a config names as ``module:attribute``: a user's own networks and data.

A module is looked for in the folder of the run first, then beside the config file (`look_beside`), then
where Python finds installed packages. Finding one and naming its code imports nothing, so the Snakefile can
do both; `resolve` imports it, in a job. Those of the standard library are refused, under whatever name: they
build no network, and some run commands.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

from valleys.errors import ValleysError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
#: ``__main__`` is the script of a job.
_STANDARD = sys.stdlib_module_names | {"__main__"}
_INSTEAD = "name a callable of your own, or of an installed package"
#: The environment variable that tells jobs in which folders config files lie, as a JSON list.
FOLDERS = "VALLEYS_CONFIG_FOLDERS"
_GIVEN = os.environ.get(FOLDERS, "[]")


def check(where: str, factory: Any, kwargs: Any) -> tuple[str, dict[str, Any]]:
    """Return a factory's name and its keyword arguments, checked; nothing is looked for yet.

    Raises
    ------
    ValleysError
        When the name is not ``module:attribute`` or one of the standard library, or `kwargs` no mapping with
        names for keys.
    """
    if not isinstance(factory, str) or not _NAME.fullmatch(factory):
        raise ValleysError(
            f"{where}.factory: {factory!r} names no callable; write module:attribute, as in mypkg.nets:build"
        )
    module, _, attribute = factory.partition(":")
    head = module.partition(".")[0]
    if head in _STANDARD:
        raise ValleysError(
            f"{where}.factory: {factory!r}: {head} is a module of Python's standard library; {_INSTEAD}, in "
            "a module of another name"
        )
    for part in attribute.split("."):
        if part.startswith("__"):
            raise ValleysError(f"{where}.factory: {factory!r}: {part} is internal to Python; {_INSTEAD}")
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping):
        raise ValleysError(f"{where}.kwargs: {kwargs!r} is not a mapping; write for example {{width: 8}}")
    for key in kwargs:
        if not isinstance(key, str) or not key.isidentifier():
            raise ValleysError(f"{where}.kwargs: {key!r} cannot be the name of an argument")
    return factory, dict(kwargs)


def check_alone(where: str, block: Mapping[str, Any]) -> None:
    """Check that a block with a factory has nothing but its arguments beside it.

    Raises
    ------
    ValleysError
        For the first other key.
    """
    for key in block:
        if key not in ("factory", "kwargs"):
            raise ValleysError(
                f"{where}.{key}: {block[key]!r} is set beside factory, which takes nothing but kwargs; "
                "put it there, or drop it"
            )


def look_beside(configs: Iterable[str | Path]) -> None:
    """Have modules looked for in the folders of config files too, by this process and those that it starts.

    Folders that this process was started with stay. `PYTHONPATH` would not do: it comes before the standard
    library, and a ``types.py`` beside a config would stop Python itself.
    """
    folders = [str(Path(config).resolve().parent) for config in configs]
    os.environ[FOLDERS] = json.dumps(list(dict.fromkeys([*folders, *json.loads(_GIVEN)])))


def _folders() -> list[Path]:
    """Return the folder of the run and those of config files."""
    here = Path.cwd()
    beside = map(Path, json.loads(os.environ.get(FOLDERS, "[]")))
    return [here, *(folder for folder in beside if folder != here)]


def _not_found(factory: str, module: str) -> str:
    """Return where a module was looked for in vain."""
    here, *beside = _folders()
    places = [f"in {here}, the folder of the run", *(f"in {at}, beside the config" for at in beside)]
    return f"factory {factory!r}: module {module!r} is neither {', nor '.join(places)}, nor installed"


# ---- finding the code, without importing it ----------------------------------------------------------------


def code(factory: str) -> str | None:
    """Return 16 hexadecimal digits that name the source of a factory's module and what it imports.

    Counted are the module's file, the packages it lies in, and the files it imports (``import`` statements
    anywhere in them, followed) as far as they are the user's: in the folder of the run, beside the config,
    or elsewhere on Python's path but not in an installed package. The digits depend on names and bytes of
    these files, not on where the folder lies.

    Returns
    -------
    None for an installed package (`version` names its release).

    Raises
    ------
    ValleysError
        When there is no such module, or one of the files is not Python.
    """
    module = factory.partition(":")[0]
    found = _own(module.split("."))
    if found is None:
        if not _installed(module.split(".")[0]):
            raise ValleysError(_not_found(factory, module))
        return None
    digest = hashlib.sha256()
    for name, path in sorted(_sources(factory, *found).items()):
        digest.update(f"{name}\x1f".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def version(factory: str) -> str | None:
    """Return what names the code of a factory: of a user's own `code`, of an installed package its release.

    The release is the distribution's name and version, as in ``timm 1.0.9``, without what says for which
    hardware it was built. That of packages which a user's own module imports is not looked at, no more than
    torch's.

    Returns
    -------
    None for what has no release: the standard library.

    Raises
    ------
    ValleysError
        As `code`.
    """
    digest = code(factory)
    return digest if digest is not None else _release(factory.partition(":")[0].partition(".")[0])


def _release(package: str) -> str | None:
    """Return name and version of the distributions that a package is installed from."""
    try:
        found = [metadata.distribution(package)]  # most are called as their package is
    except (metadata.PackageNotFoundError, ValueError):
        names = metadata.packages_distributions().get(package, ())
        found = [metadata.distribution(name) for name in sorted(set(names))]
    return ", ".join(f"{one.name} {one.version.partition('+')[0]}" for one in found) or None


def _own(parts: Sequence[str]) -> tuple[Path, dict[str, Path]] | None:
    """Return the folder that a user's module is imported from, and the files that importing it runs."""
    if parts[0] in sys.stdlib_module_names or parts[0] == "valleys":
        return None
    folders = [*_folders(), *(Path(entry).resolve() for entry in sys.path)]
    spec = _spec(parts[0])
    if spec is not None and str(spec.origin).endswith(
        ".py"
    ):  # on the path, or by the hook of an editable install
        origin = Path(str(spec.origin)).resolve()
        folders.append(origin.parents[1] if spec.submodule_search_locations else origin.parent)
    for folder in folders:
        found = None if _is_installed(folder) else _files(parts, [folder])
        if found is not None:
            return folder, found
    return None


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _installed(name: str) -> bool:
    return _spec(name) is not None


def _is_installed(folder: Path) -> bool:
    """Whether a folder is one of packages that were installed, of the standard library, or ours."""
    ours = Path(__file__).parents[1]
    known = {
        Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    known |= {Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages(), ours)}
    return folder in known or not {"site-packages", "dist-packages"}.isdisjoint(folder.parts)


def _files(parts: Sequence[str], folders: Iterable[Path]) -> dict[str, Path] | None:
    """Return the files that importing a module from one of some folders runs, by module; None if absent."""
    head, *rest = parts
    without_init = []
    for folder in folders:
        package, alone = folder / head, folder / f"{head}.py"
        if (package / "__init__.py").is_file():
            below = _files(rest, [package]) if rest else {}
            if below is None:
                return None
            return {head: package / "__init__.py"} | {f"{head}.{name}": path for name, path in below.items()}
        compiled = (folder / f"{head}{suffix}" for suffix in EXTENSION_SUFFIXES)
        for file in (*compiled, alone):  # in Python's order
            if file.is_file():
                return None if rest else {head: file}
        if package.is_dir():
            without_init.append(package)
    if not without_init:
        return None
    if not rest:
        return {}
    below = _files(rest, without_init)
    return None if below is None else {f"{head}.{name}": path for name, path in below.items()}


def _sources(factory: str, folder: Path, todo: Mapping[str, Path]) -> dict[str, Path]:
    """Return a module's files and those of all it imports that are the user's, by module."""

    @functools.cache
    def elsewhere(module: str) -> dict[str, Path]:
        own = _own(module.split("."))
        return own[1] if own else {}

    found: dict[str, Path] = {}
    todo = dict(todo)
    while todo:
        name, path = todo.popitem()
        found[name] = path
        if path.suffix != ".py":
            continue
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except OSError as error:
            raise ValleysError(f"factory {factory!r}: {path} cannot be read ({error.strerror})") from error
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise ValleysError(
                f"factory {factory!r}: {path}{line} is not Python ({_line(error)}); mend it"
            ) from error
        for module in _imported(tree, name, path.name == "__init__.py"):
            more = _files(module.split("."), [folder])
            if more is None:
                more = elsewhere(module)
            todo |= {key: file for key, file in more.items() if key not in found}
    return found


def _imported(tree: ast.AST, module: str, is_package: bool) -> Iterable[str]:
    """Yield the dotted names that a file's import statements may mean; some are attributes, not modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = [*package[: len(package) + 1 - node.level], *base]
            if base:
                yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names if alias.name != "*")


# ---- importing and calling it ------------------------------------------------------------------------------


def resolve(factory: str) -> Callable[..., Any]:
    """Import what a factory's name says, the folder of the run first, then those of config files.

    torchvision, and modules that import it, work beside a CPU build of torch as well
    (`valleys.torchvision_compat`).

    Raises
    ------
    ValleysError
        When the module cannot be found or raises, or has no such callable, or that is one of the standard
        library.
    """
    from valleys.torchvision_compat import declare_operators

    module, _, attribute = factory.partition(":")
    folders = [str(folder) for folder in _folders()]
    if sys.path[: len(folders)] != folders:
        sys.path[:0] = folders
    declare_operators()
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValleysError(_not_found(factory, error.name)) from error
        raise ValleysError(
            f"factory {factory!r}: importing its module needs {error.name!r}; install it"
        ) from error
    except Exception as error:
        raise ValleysError(f"factory {factory!r}: importing its module raises {_raised(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = [name for name in dir(found) if name.lower() == part.lower()]
            hint = f", did you mean {near[0]!r}?" if near else f"; define it in {module}"
            raise ValleysError(f"factory {factory!r}: there is no {part!r} in {module}{hint}")
        found = getattr(found, part)
        if isinstance(found, ModuleType):
            _refuse_standard(factory, found)
    if not callable(found):
        raise ValleysError(
            f"factory {factory!r} is {type(found).__name__}, which cannot be called; name a function"
        )
    _refuse_standard(factory, found)
    return found


def _refuse_standard(factory: str, found: Any) -> None:
    """Raise when what a name leads to is of the standard library, as ``mypkg.nets:os.system`` is."""
    while isinstance(found, functools.partial):
        found = found.func
    name = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None)
    if name is None:  # a function written in C, of a module or an object
        owner = getattr(found, "__self__", found)
        name = getattr(owner if isinstance(owner, type) else type(owner), "__module__", None)
    if _is_standard(str(name)):
        what = getattr(found, "__qualname__", None) or getattr(found, "__name__", type(found).__name__)
        raise ValleysError(
            f"factory {factory!r} is {what} of {name}, in Python's standard library; {_INSTEAD}"
        )


def _is_standard(module: str) -> bool:
    head = module.partition(".")[0]
    if head in _STANDARD:
        return True
    path = Path(getattr(sys.modules.get(head), "__file__", None) or "/").resolve()  # as of the package test
    folder = Path(sysconfig.get_path("stdlib")).resolve()
    return folder in path.parents and {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def offered(make: Callable[..., Any], values: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return `kwargs` and, of `values`, what a callable names in its signature and `kwargs` does not set.

    A callable that takes ``**kwargs`` gets none for that: what it does with them cannot be seen (`guesses`).
    """
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return dict(kwargs)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {**{key: value for key, value in values.items() if key in named}, **kwargs}


def guesses(
    make: Callable[..., Any], given: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the arguments to try in turn: `given`, then more of `values` if a callable takes ``**kwargs``.

    Constructors of torchvision and timm pass what they do not name on to the network.
    """
    arguments = dict(given)
    yield arguments
    try:
        kinds = {p.kind for p in inspect.signature(make).parameters.values()}
    except (TypeError, ValueError):
        return
    for key in values if inspect.Parameter.VAR_KEYWORD in kinds else ():
        if key not in arguments:
            arguments = {**arguments, key: values[key]}
            yield arguments


def call(factory: str, make: Callable[..., Any], kwargs: Mapping[str, Any], *inputs: Any) -> Any:
    """Call a factory, or with `inputs` what it made; whatever it raises becomes one line.

    Raises
    ------
    ValleysError
        When it raises: its type, message and place.
    """
    try:
        return make(*inputs, **kwargs)
    except ValleysError:
        raise
    except Exception as error:
        if inputs:
            given = f"its network, given {' and '.join(str(tuple(x.shape)) for x in inputs)},"
        else:
            given = f"called with ({', '.join(f'{key}={value!r}' for key, value in kwargs.items())}),"
        raise ValleysError(f"factory {factory!r}: {given} raises {_raised(error)}") from error


@contextlib.contextmanager
def one_line(what: str, advice: str = "") -> Iterator[None]:
    """Within the block, whatever a user's code raises becomes one line.

    Parameters
    ----------
    what
        Raises: a part of the message, as in ``loss: given ..., it``.
    advice
        Ends the message.

    Raises
    ------
    ValleysError
        With type, message and place of what was raised.
    """
    try:
        yield
    except ValleysError:
        raise
    except Exception as error:
        raise ValleysError(f"{what} raises {_raised(error)}{advice}") from error


def _raised(error: BaseException) -> str:
    """Return type, message and innermost place of an exception, on one line."""
    ours = Path(__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != ours]
    own = [f for f in frames if not _is_installed(Path(f.filename).parent) and "importlib" not in f.filename]
    at = own[-1] if own else None
    return f"{type(error).__name__}: {_line(error)}" + (
        f" ({Path(at.filename).name}, line {at.lineno})" if at else ""
    )


def _line(error: BaseException) -> str:
    text = str(error)
    if "Original Traceback" in text:  # of a DataLoader's worker: the error is its last line
        text = text.strip().splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
