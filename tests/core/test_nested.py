"""Nested configurations: flat names, defaults of parents, and what cannot be declared."""

import dataclasses

import pytest

from flax_distil.cli.flags import read_flags
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, flatten, leaves, nested, replace, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rates.

    Attributes:
        peak: Highest learning rate, which is
            reached after the warm-up.
        kwargs: Other parameters.
    """

    peak: float = 1.0
    kwargs: dict[str, float] | None = None

    def __post_init__(self):
        if self.peak < 0:
            raise InputError(f"peak {self.peak:g} is negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer.

    Attributes:
        decay: Weight decay.
        mode: Mode of the update.
        dtype: Set by the program.
    """

    schedule: Schedule = Schedule(peak=2.0)
    decay: float = 0.0
    mode: str | None = setting(None, switch="full")
    dtype: str = setting("float32", hidden=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """Output.

    Attributes:
        folder: Folder to write.
    """

    folder: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run.

    Attributes:
        name: Name.
        steps: Numbers of steps.
    """

    name: str = "run"
    steps: tuple[int, ...] = (1,)
    optimizer: Optimizer = nested(Optimizer(decay=0.5), rename={"mode": "update_mode"}, section="Updates")
    output: Output = nested(help={"folder": "Folder of the student."})
    dtype: str = "bfloat16"


def test_leaves_have_the_defaults_types_and_texts_of_their_place():
    found = {leaf.name: leaf for leaf in leaves(Run)}
    assert list(found) == ["name", "steps", "peak", "kwargs", "decay", "update_mode", "folder", "dtype"]
    assert (found["peak"].default, found["decay"].default) == (2.0, 0.5)
    assert found["peak"].text == "Highest learning rate, which is reached after the warm-up."
    assert (found["folder"].required, found["folder"].hint) == (True, str)
    assert found["folder"].text == "Folder of the student."
    assert [found[name].section for name in ("name", "peak", "decay")] == ["", "Learning rates", "Updates"]


def test_flat_values_build_a_nested_configuration_and_come_back():
    run = build(Run, {"folder": "o", "peak": 3.0})
    assert run == Run(output=Output(folder="o"), optimizer=Optimizer(decay=0.5, schedule=Schedule(peak=3.0)))
    assert flatten(run)["peak"] == 3.0
    assert replace(run, decay=0.0).optimizer == Optimizer(decay=0.0, schedule=Schedule(peak=3.0))
    with pytest.raises(InputError, match=r"setting 'peek' is not known, did you mean peak\?"):
        build(Run, {"folder": "o", "peek": 3.0})
    with pytest.raises(InputError, match="missing --folder"):
        build(Run, {})
    with pytest.raises(InputError, match="peak -1 is negative"):
        replace(run, peak=-1.0)


@pytest.mark.parametrize(
    "contents",
    [
        "peak: 1e-4\nupdate_mode: true\nkwargs: {power: 2}",
        "optimizer: {schedule: {peak: 1e-4, kwargs: {power: 2}}, mode: full}",
        "optimizer: {peak: 1e-4, update_mode: full, schedule: {kwargs: {power: 2}}}",
    ],
)
def test_files_are_read_flat_or_nested(contents, tmp_path):
    (tmp_path / "run.yaml").write_text(contents)
    arguments = ["--folder=o", f"--config={tmp_path / 'run.yaml'}", "--steps", "1", "2"]
    run = read_flags(Run, arguments, program="p")
    assert run.optimizer.schedule == Schedule(peak=1e-4, kwargs={"power": 2.0})
    assert run.optimizer.mode == "full"
    assert run.steps == (1, 2)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ("optimizer: {peek: 1}", "flag 'optimizer.peek' is not accepted, did you mean peak?"),
        ("optimizer: 3", "'optimizer' is a group of flags: expected names and values below it"),
        ("peak: 1\noptimizer: {peak: 1}", "flag 'peak' is given twice"),
        ("optimizer: {dtype: x}", "flag 'optimizer.dtype' is not accepted"),
    ],
)
def test_what_is_wrong_in_a_nested_file_is_one_sentence(contents, sentence, tmp_path):
    (tmp_path / "run.yaml").write_text(contents)
    with pytest.raises(InputError) as caught:
        read_flags(Run, ["--folder=o", f"--config={tmp_path / 'run.yaml'}"], program="p")
    assert str(caught.value) == f"--config: {str(tmp_path / 'run.yaml')!r}: {sentence}"


def test_two_settings_of_one_name_are_an_error_of_the_program():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Twice:
        """Twice.

        Attributes:
            peak: Again.
        """

        peak: float = 0.0
        schedule: Schedule = Schedule()

    with pytest.raises(TypeError, match="more than one setting named peak"):
        leaves(Twice)


def test_an_unknown_flag_names_the_nearest():
    with pytest.raises(InputError, match=r"unrecognized arguments: --peek=3, did you mean --peak\?"):
        read_flags(Run, ["--folder=o", "--peek=3"], program="p")
