"""Results appear whole or not at all, and nothing else is touched."""

import pytest

from flax_distil.core.errors import InputError
from flax_distil.storage.output_dir import atomic_folder, check_output_dir, check_writable


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path):
    folder = tmp_path / "deep" / "results"
    with atomic_folder(folder) as stage:
        (stage / "a").write_text("1")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert [path.name for path in folder.parent.iterdir()] == ["results"]


def fail_half_way(folder):
    with atomic_folder(folder) as stage:
        (stage / "a").write_text("new")
        raise RuntimeError("half way")


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_earlier_result_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_overwriting_replaces_results_and_stale_parts_but_keeps_other_files(tmp_path):
    for name in ("results.json", "part-2", "thesis.txt"):
        (tmp_path / name).write_text("old")
    folder = check_output_dir(str(tmp_path), overwrite=True)
    with atomic_folder(folder, stale=("part-*",)) as stage:
        (stage / "results.json").write_text("new")
        (stage / "part-1").write_text("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"results.json": "new", "part-1": "new", "thesis.txt": "old"}


def test_a_folder_that_is_not_empty_needs_the_flag(tmp_path):
    (tmp_path / "results.json").write_text("")
    with pytest.raises(InputError, match="is not empty: choose another, or set overwrite_output_dir"):
        check_output_dir(str(tmp_path), overwrite=False)


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made: '.*file' is a file"):
        check_writable(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    "mark", ["metrics.jsonl", "results.json", "model.safetensors", "dataset_info.json", ".labelling"]
)
def test_what_a_command_wrote_may_be_overwritten_even_if_it_stopped_early(tmp_path, mark):
    (tmp_path / mark).write_text("")
    assert check_output_dir(str(tmp_path), overwrite=True) == tmp_path


def test_a_folder_of_someone_else_is_refused_with_the_flag_too(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds files not written by flax-distil and is not overwritten"):
        check_output_dir(str(tmp_path), overwrite=True)


def test_a_folder_among_the_results_is_filled_and_not_replaced(tmp_path):
    (tmp_path / "onnx").mkdir()
    for name in ("results.json", "onnx/a.onnx", "onnx/b.onnx", "onnx/notes.txt"):
        (tmp_path / name).write_text("old")
    with atomic_folder(tmp_path, stale=("onnx/*.onnx",)) as stage:
        (stage / "onnx").mkdir()
        (stage / "onnx" / "a.onnx").write_text("new")
    found = {path.name: path.read_text() for path in (tmp_path / "onnx").iterdir()}
    assert found == {"a.onnx": "new", "notes.txt": "old"}
