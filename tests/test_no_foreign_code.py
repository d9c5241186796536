"""Nothing that is read can run code: no pickle, no modules of other people's repositories, no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    [*(ROOT / "flax_distil").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *ROOT.glob("run_*.py")]
)

MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch",
    "jax.experimental.serialize_executable", "orbax.checkpoint.pickle",
}  # fmt: skip
"""Modules that read pickles, or are made of them."""

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load",
    "pandas.read_pickle", "pd.read_pickle", "shutil.unpack_archive",
}  # fmt: skip
METHODS = {"extractall", "load_state_dict_from_url", "deserialize_and_load"}
ARGUMENTS = {"trust_remote_code", "allow_pickle", "shell"}


def unsafe(source: str) -> Iterator[str]:
    """Yield every way in which a module could run code that it read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_unsafe_module(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from filter(_is_unsafe_module, names)
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _is_unsafe_module(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in MODULES)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in CALLS or called.rpartition(".")[2] in METHODS:
        yield called
    if (
        called == "yaml.load"
        and "safe" not in ast.unparse(node).lower()
        and "_loader()" not in ast.unparse(node)
    ):
        yield called
    for keyword in node.keywords:
        if keyword.arg in ARGUMENTS and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        ):
            yield f"{called}({keyword.arg})"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "def late():\n    import dill as d", "import torch.nn",
        "from jax.experimental import serialize_executable", "np.load(file, allow_pickle=True)",
        "load_dataset(name, trust_remote_code=flag)", "eval(text)", "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)", "subprocess.run(line, shell=True)",
    ],
)  # fmt: skip
def test_what_runs_code_is_seen(source):
    assert list(unsafe(source))


@pytest.mark.parametrize(
    "source",
    ["np.load(file)", "jax.jit(f).lower(x).compile()", "np.load(file, allow_pickle=False)", "import pyarrow",
     "yaml.load(text, Loader=yaml.SafeLoader)"],
)  # fmt: skip
def test_what_runs_nothing_is_allowed(source):
    assert not list(unsafe(source))


def test_no_file_of_the_package_runs_what_it_reads():
    found = {str(path.relative_to(ROOT)): list(unsafe(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {name: ways for name, ways in found.items() if ways} == {}
