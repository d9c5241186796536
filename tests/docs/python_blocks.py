"""Checks a block of Python without running it: its imports, and the arguments of calls of this package."""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, leaves
from flax_distil.pipeline.call_options import CallOptions
from flax_distil.pipeline.pipeline import Pipeline


def problems(text: str) -> list[str]:
    """Return what is wrong with a block, a sentence each.

    A block may go on where an earlier one ended: names that it does not import are not checked, except that
    ``pipeline`` is a ``Pipeline``.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    found = list(_missing_modules(tree))
    names = _imported_names(tree, found)
    instances = ({} if _imports(tree, "pipeline") else {"pipeline": Pipeline}) | _instances(tree, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [f"line {node.lineno}: {problem}" for problem in _call(node, names, instances)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            found += _attribute(node, names)
    return found


def _missing_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            if importlib.util.find_spec(module.partition(".")[0]) is None:
                yield f"line {node.lineno}: there is no module {module}"


def _imported_names(tree: ast.Module, found: list[str]) -> dict[str, Any]:
    """Return what a block imports from this package, by name."""
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("flax_distil"):
            continue
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            if hasattr(module, alias.name):
                names[alias.asname or alias.name] = getattr(module, alias.name)
            else:
                found.append(f"line {node.lineno}: {node.module} has no {alias.name}")
    return names


def _imports(tree: ast.Module, name: str) -> bool:
    """Return whether a block imports a name, from wherever it is."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return any(name == (alias.asname or alias.name) for node in imports for alias in node.names)


def _instances(tree: ast.Module, names: dict[str, Any]) -> dict[str, type]:
    """Return the classes of variables that hold an instance of an imported class."""
    instances = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = names.get(ast.unparse(node.value.func))
            if isinstance(made, type):
                instances |= {target.id: made for target in node.targets if isinstance(target, ast.Name)}
    return instances


def _call(node: ast.Call, names: dict[str, Any], instances: dict[str, type]) -> Iterator[str]:
    called, method = ast.unparse(node.func), None
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        owner = instances.get(node.func.value.id)
        if owner is not None and not hasattr(owner, node.func.attr):
            yield f"{owner.__name__} has no {node.func.attr}"
            return
        method = getattr(owner, node.func.attr) if owner is not None else None
    elif called in instances:
        method = instances[called].__call__
    function = method or names.get(called)
    if function is None:
        return
    if function is build:
        yield from _settings(node, names)
    else:
        yield from _arguments(node, function, bound=method is not None)


def _settings(node: ast.Call, names: dict[str, Any]) -> Iterator[str]:
    """Check the settings that ``build`` is given, and build the configuration where all are literals."""
    config = names[ast.unparse(node.args[0])]
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    unknown = set(given) - {leaf.name for leaf in leaves(config)}
    if unknown:
        yield f"{config.__name__} has no setting {', '.join(sorted(unknown))}"
        return
    try:
        build(config, {name: ast.literal_eval(value) for name, value in given.items()})
    except ValueError as error:  # an InputError is one too; ast raises it for what is no literal
        if isinstance(error, InputError):
            yield str(error)


def _arguments(node: ast.Call, function: Any, *, bound: bool) -> Iterator[str]:
    """Check that a function takes the arguments of a call, whatever their values are."""
    if any(keyword.arg is None for keyword in node.keywords):
        return
    keywords = {keyword.arg: None for keyword in node.keywords}
    positional = [None] * (len(node.args) + bound)
    try:
        inspect.signature(function).bind(*positional, **keywords)
    except TypeError as error:
        yield f"{ast.unparse(node.func)}: {error}"
    if function in (Pipeline, Pipeline.__call__, Pipeline.warm_up):
        own = inspect.signature(Pipeline.__init__).parameters if function is Pipeline else {}
        options = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg not in own}
        try:
            CallOptions({name: ast.literal_eval(value) for name, value in options.items()})
        except InputError as error:
            yield str(error)
        except ValueError:  # a value that is computed
            return


def _attribute(node: ast.Attribute, names: dict[str, Any]) -> list[str]:
    """Check an attribute of the result of a function of this package."""
    called = names.get(ast.unparse(node.value.func)) if isinstance(node.value, ast.Call) else None
    if not inspect.isfunction(called):
        return []
    result = inspect.get_annotations(called, eval_str=True).get("return")
    fields = getattr(result, "__dataclass_fields__", None)
    if fields is None or node.attr in fields or hasattr(result, node.attr):
        return []
    return [f"line {node.lineno}: {called.__name__} returns a {result.__name__} without {node.attr}"]
