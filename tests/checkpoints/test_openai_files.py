"""Models of openai-whisper are read as they are, and nothing in their files is run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper

from flax_distil.checkpoints.checkpoint import open_checkpoint
from flax_distil.checkpoints.formats.openai.names import to_openai
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.identity import model_identity
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats.openai import dimensions


@pytest.fixture(scope="module")
def model_file(tiny_en_dir, tmp_path_factory) -> Path:
    """tiny.en as openai-whisper would save it, written by torch."""
    opened = open_checkpoint(tiny_en_dir)
    state = {
        to_openai(name): torch.from_numpy(opened.reader.read(name))
        for name in opened.reader.tensors
        if name != "proj_out.weight"
    }
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**dimensions(opened.config)))
    model.load_state_dict(state)
    path = tmp_path_factory.mktemp("openai") / "tiny.en.pt"
    torch.save({"dims": vars(model.dims), "model_state_dict": model.half().state_dict()}, path)
    return path


def test_every_weight_and_size_is_that_of_the_file(model_file, tiny_en_dir):
    expected, found = open_checkpoint(tiny_en_dir), open_checkpoint(model_file)
    assert found.config == expected.config
    assert found.reader.tensors.keys() == expected.reader.tensors.keys()
    for name in found.reader.tensors:
        np.testing.assert_array_equal(found.reader.read(name), expected.reader.read(name))


def test_the_tokenizer_is_that_of_openai_whisper(model_file, tiny_en_dir):
    ours, settings = read_tokenizer(open_checkpoint(model_file).files)
    published, published_settings = read_tokenizer(open_checkpoint(tiny_en_dir).files)
    text = " The café isn't open at 3:50 – 日本語 ♪"
    assert ours.encode(text) == published.encode(text)
    assert ours.special == published.special
    assert settings.suppress_tokens == published_settings.suppress_tokens
    assert settings.begin_suppress_tokens == published_settings.begin_suppress_tokens
    assert settings.alignment_heads == ()


def test_the_multilingual_vocabulary_is_that_of_the_published_files(base_dir):
    from flax_distil.checkpoints.formats.openai.files import read_openai_files

    opened = open_checkpoint(base_dir)
    made = read_openai_files(Path("nowhere"), opened.config, origin="base.pt")
    ours, published = (
        json.loads(files.tokenizer["tokenizer.json"])["model"] for files in (made, opened.files)
    )
    assert ours["vocab"] == published["vocab"]
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in published["merges"]]
    assert ours["merges"] == [["Ġ", "t"], *merges]  # the published file lost the first one
    assert made.generation_config["suppress_tokens"] == opened.files.generation_config["suppress_tokens"]


def test_a_folder_with_one_file_is_enough_and_files_beside_it_are_taken(model_file, tiny_en_dir, tmp_path):
    shutil.copy(model_file, tmp_path / "model.pt")
    shutil.copy(tiny_en_dir / "tokenizer.json", tmp_path)
    shutil.copy(tiny_en_dir / "generation_config.json", tmp_path)
    files = open_checkpoint(tmp_path).files
    assert files.tokenizer["tokenizer.json"] == (tiny_en_dir / "tokenizer.json").read_bytes()
    assert files.generation_config["alignment_heads"]
    shutil.copy(model_file, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"holds 2 \.pt files \(model\.pt, other\.pt\)"):
        open_checkpoint(tmp_path)


def test_without_a_tokenizer_anywhere_it_is_said_where_one_is(model_file, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install openai-whisper.*hf download openai/whisper-tiny\.en"):
        open_checkpoint(model_file)


def test_the_identity_of_a_file_changes_with_its_weights(model_file, tmp_path):
    before = model_identity(ModelSource(name=str(model_file)))
    assert before is not None
    changed = tmp_path / model_file.name
    changed.write_bytes(model_file.read_bytes()[:-1] + b"x")
    assert model_identity(ModelSource(name=str(changed))) != before


class Hostile:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["dims", "model_state_dict", "inside"])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(place, tmp_path):
    canary, hostile = tmp_path / "canary", Hostile(tmp_path / "canary")
    contents = {"dims": {"n_mels": 80}, "model_state_dict": {"encoder.conv1.bias": torch.zeros(3)}}
    if place == "inside":
        contents["model_state_dict"]["encoder.conv2.bias"] = hostile
    else:
        contents[place] = hostile
    torch.save(contents, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match=r"holds posix\.system, which is neither a number"):
        open_checkpoint(tmp_path / "hostile.pt").reader.read("model.encoder.conv1.bias")
    assert not canary.exists()


@pytest.mark.parametrize(
    "contents",
    [
        b"(" + b")" + b"\x85" * 10**6 + b"K\x01",  # a tuple in a tuple …, as a key
        b"(" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"K\x01",
        b"(K\x01" + b"2" * 100 + b"K\x01",
        b"(\x8d" + b"\xff" * 8,
        b"(" + b")\x85\x93K\x01",
    ],
)
def test_pickles_that_would_fill_memory_or_stack_are_refused(contents):
    from flax_distil.checkpoints.formats.archives.pickle_data import PickleError, read_pickle

    with pytest.raises(PickleError):
        read_pickle(b"\x80\x02}" + contents + b"u.")


def test_what_is_beside_the_weights_may_be_anything(model_file, tmp_path):
    contents = torch.load(model_file, weights_only=True)
    torch.save(contents | {"trainer": Hostile(tmp_path / "canary")}, tmp_path / "more.pt")
    assert open_checkpoint(tmp_path / "more.pt").config.decoder_layers == 4
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"not a zip", "is not a complete file of torch.save"),
        (b"PK\x03\x04" + b"\0" * 60, "is not a complete file of torch.save"),
        (b"", "is not a complete file of torch.save"),
    ],
)
def test_other_files_are_refused(contents, problem, tmp_path):
    (tmp_path / "x.pt").write_bytes(contents)
    with pytest.raises(InputError, match=problem):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        ({"state_dict": {}}, "has no dims"),
        ([1, 2], "holds no dictionary"),
        ({"dims": 3, "model_state_dict": {}}, "its dims are 3"),
        ({"dims": {"n_mels": 80}, "model_state_dict": {}}, "lacks n_vocab"),
        ({"dims": {}, "model_state_dict": 3}, "its model_state_dict is 3"),
        ({"dims": {}, "model_state_dict": {"a": 3}}, "'a' in its model_state_dict is no tensor"),
    ],
)
def test_files_of_torch_that_hold_something_else_are_refused(saved, problem, tmp_path):
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(InputError, match=problem):
        open_checkpoint(tmp_path / "x.pt")


def test_a_file_that_is_cut_off_is_refused(model_file, tmp_path):
    (tmp_path / "x.pt").write_bytes(model_file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="fetch it again"):
        open_checkpoint(tmp_path / "x.pt")


def test_views_and_parameters_are_read_with_their_strides(tmp_path):
    from flax_distil.checkpoints.formats.archives.torch_archive import TorchArchive

    matrix = torch.arange(12.0).reshape(3, 4)
    saved = {"view": matrix.T[1:3], "parameter": torch.nn.Parameter(matrix), "bfloat16": matrix.bfloat16()}
    torch.save(saved, tmp_path / "x.pt")
    archive = TorchArchive.open(tmp_path / "x.pt", name="x.pt")
    for name, tensor in saved.items():
        read = archive.read(archive.value(name)).astype(np.float32)
        np.testing.assert_array_equal(read, tensor.detach().float().numpy())
