import dataclasses
import errno
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.model_config import EXPORT_DTYPES
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten, unflatten

SENTENCES = (
    " Hello, world! It's 12:30 in Zürich.",
    "<|startoftranscript|><|notimestamps|> naïve café<|endoftext|>",
    "<|0.00|> one<|1.28|><|1.28|> two<|30.00|>",
)


@pytest.fixture(scope="module")
def student(tiny_en_dir: Path) -> Checkpoint:
    return init_student(load_checkpoint(tiny_en_dir), decoder_layers=2)


@pytest.fixture(scope="module")
def export(student: Checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    return export_checkpoint(student.params, student.config, folder, files=student.files)


def written(checkpoint: Checkpoint, folder: Path, **options) -> Path:
    return export_checkpoint(checkpoint.params, checkpoint.config, folder, files=checkpoint.files, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_transformers_finds_no_missing_and_no_unexpected_key(export: Path, tiny_en_dir: Path):
    model, info = WhisperForConditionalGeneration.from_pretrained(export, output_loading_info=True)
    assert {key: len(value) for key, value in info.items()} == dict.fromkeys(info, 0)
    assert model.dtype == torch.float16
    assert model.config.decoder_layers == 2
    teacher = load_file(tiny_en_dir / "model.safetensors")
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    for name, tensor in tensors.items():
        source = name.replace("decoder.layers.1.", "decoder.layers.3.")
        assert torch.equal(tensor, teacher[source]), name
    assert torch.equal(model.proj_out.weight, model.model.decoder.embed_tokens.weight)


def test_transformers_reads_the_settings_that_the_teacher_had(export: Path, tiny_en_dir: Path):
    ours, teachers = (GenerationConfig.from_pretrained(folder).to_dict() for folder in (export, tiny_en_dir))
    assert ours.pop("alignment_heads") == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4]]
    del teachers["alignment_heads"]
    assert ours == teachers


def test_the_processor_of_an_export_is_that_of_the_teacher(export: Path, tiny_en_dir: Path):
    ours, teachers = (WhisperProcessor.from_pretrained(folder) for folder in (export, tiny_en_dir))
    assert ours.feature_extractor.to_dict() == teachers.feature_extractor.to_dict()
    assert ours.tokenizer.get_vocab() == teachers.tokenizer.get_vocab()
    for sentence in SENTENCES:
        ids = teachers.tokenizer.encode(sentence, add_special_tokens=False)
        assert ours.tokenizer.encode(sentence, add_special_tokens=False) == ids
        assert ours.tokenizer.decode(ids) == teachers.tokenizer.decode(ids)
    assert ours.tokenizer.all_special_ids == teachers.tokenizer.all_special_ids


def test_the_vocabulary_files_of_older_readers_make_the_same_tokenizer(export: Path):
    fast = WhisperTokenizer.from_pretrained(export)
    merges = (export / "merges.txt").read_text().splitlines()
    vocabulary = json.loads((export / "vocab.json").read_bytes())
    rebuilt = WhisperTokenizer(vocab=vocabulary, merges=[tuple(line.split(" ")) for line in merges[1:]])
    sentence = SENTENCES[0]
    assert merges[0] == "#version: 0.2"
    assert rebuilt.encode(sentence, add_special_tokens=False) == fast.encode(
        sentence, add_special_tokens=False
    )


def test_the_configuration_describes_the_student_and_its_precision(export: Path):
    config = json.loads((export / "config.json").read_bytes())
    assert config["decoder_layers"] == 2
    assert config["encoder_layers"] == 4
    assert config["dtype"] == "float16"
    assert config["architectures"] == ["WhisperForConditionalGeneration"]
    assert config["decoder_start_token_id"] == 50257
    assert config["suppress_tokens"] is None


@pytest.mark.parametrize("dtype", EXPORT_DTYPES)
def test_an_export_read_back_is_what_was_written(small_checkpoint: Checkpoint, tmp_path: Path, dtype: str):
    back = load_checkpoint(written(small_checkpoint, tmp_path, dtype=dtype))
    assert back.config == small_checkpoint.config
    assert back.files.tokenizer.items() >= small_checkpoint.files.tokenizer.items()
    for path, leaf in flatten(small_checkpoint.params).items():
        np.testing.assert_array_equal(flatten(back.params)[path], leaf, err_msg=path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}


def test_parameters_in_another_precision_are_converted(small_checkpoint: Checkpoint, tmp_path: Path):
    params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16), small_checkpoint.params)
    half = dataclasses.replace(small_checkpoint, params=params)
    assert contents(written(half, tmp_path / "a")) == contents(written(small_checkpoint, tmp_path / "b"))


def test_shards_stay_below_their_size_and_load_in_transformers(small_checkpoint: Checkpoint, tmp_path: Path):
    written(small_checkpoint, tmp_path, dtype="float32", max_shard_size=5_000_000)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in shards] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert all(path.stat().st_size < 5_000_000 + 20_000 for path in shards)
    model, info = WhisperForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert {key: len(value) for key, value in info.items()} == dict.fromkeys(info, 0)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())
    assert index["metadata"]["total_size"] == sum(4 * p.numel() for p in model.parameters())
    back = load_checkpoint(tmp_path)
    for path, leaf in flatten(small_checkpoint.params).items():
        np.testing.assert_array_equal(flatten(back.params)[path], leaf, err_msg=path)


def test_an_earlier_export_of_another_form_leaves_nothing_behind(
    small_checkpoint: Checkpoint, tmp_path: Path
):
    (tmp_path / "metrics.jsonl").write_text("kept")
    written(small_checkpoint, tmp_path, max_shard_size=10**6)
    written(small_checkpoint, tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    written(small_checkpoint, tmp_path, max_shard_size=10**6)
    assert "model.safetensors" not in contents(tmp_path)
    assert load_checkpoint(tmp_path).config == small_checkpoint.config
    assert (tmp_path / "metrics.jsonl").read_text() == "kept"


def test_alignment_heads_that_the_model_lacks_are_not_written(small_checkpoint: Checkpoint, tmp_path: Path):
    heads = [[0, 3], [4, 4], [5, 0], [4, 1]]
    files = dataclasses.replace(small_checkpoint.files, generation_config={"alignment_heads": heads})
    written(dataclasses.replace(small_checkpoint, files=files), tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_bytes())["alignment_heads"] == [
        [0, 3],
        [4, 1],
    ]


def test_a_value_beyond_float16_is_refused_and_nothing_is_written(
    small_checkpoint: Checkpoint, tmp_path: Path
):
    leaves = flatten(small_checkpoint.params) | {"decoder/norm/scale": jnp.full((24,), 7e4)}
    checkpoint = dataclasses.replace(small_checkpoint, params=unflatten(leaves))
    written(small_checkpoint, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(
        InputError, match=r"model\.decoder\.layer_norm\.weight reaches 70000, .*bfloat16 or float32"
    ):
        written(checkpoint, tmp_path)
    assert contents(tmp_path) == before
    written(checkpoint, tmp_path, dtype="bfloat16")


def test_a_full_disk_is_found_before_anything_is_written(small_checkpoint, tmp_path, monkeypatch):
    full = type("usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(InputError, match=r"needs 7 MB, but its disk has 1 MB free") as caught:
        written(small_checkpoint, tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    assert contents(tmp_path / "out") == {}


def test_a_disk_that_fills_up_meanwhile_leaves_the_earlier_export_whole(
    small_checkpoint, tmp_path, monkeypatch
):
    written(small_checkpoint, tmp_path)
    before = contents(tmp_path)

    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fill_up)
    with pytest.raises(InputError, match="make room or choose another folder"):
        written(small_checkpoint, tmp_path, dtype="float32")
    assert contents(tmp_path) == before


def test_a_disk_that_does_not_hold_what_was_written_leaves_the_earlier_export_whole(
    small_checkpoint, tmp_path, monkeypatch
):
    written(small_checkpoint, tmp_path)
    before, fsync = contents(tmp_path), os.fsync

    def flip_a_bit(descriptor: int) -> None:
        fsync(descriptor)
        with open(f"/proc/self/fd/{descriptor}", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    monkeypatch.setattr(os, "fsync", flip_a_bit)
    with pytest.raises(OSError, match="does not hold what was written") as raised:
        written(small_checkpoint, tmp_path)
    assert raised.value.errno == errno.EIO
    assert contents(tmp_path) == before


def test_an_element_type_that_is_not_offered_is_refused(small_checkpoint: Checkpoint, tmp_path: Path):
    with pytest.raises(InputError, match="as int8: expected one of float16, bfloat16, float32"):
        written(small_checkpoint, tmp_path / "out", dtype="int8")
    assert not (tmp_path / "out").exists()


def test_parameters_of_another_configuration_are_refused(small_checkpoint: Checkpoint, tmp_path: Path):
    other = dataclasses.replace(small_checkpoint.config, decoder_layers=4)
    with pytest.raises(ValueError, match="decoder/layers/fc1/bias"):
        export_checkpoint(small_checkpoint.params, other, tmp_path / "out", files=small_checkpoint.files)
    assert not (tmp_path / "out").exists()


def test_what_names_code_of_others_is_neither_run_nor_written_again(small_checkpoint, tmp_path: Path):
    code = {
        "auto_map": {"AutoModel": "someone/repo--code.Model"},
        "custom_pipelines": {"asr": {"impl": "a.B"}},
    }
    files = small_checkpoint.files
    files = dataclasses.replace(
        files,
        config={**files.config, **code},
        generation_config={**files.generation_config, **code},
        preprocessor_config={**files.preprocessor_config, **code},
        tokenizer_config={**files.tokenizer_config, **code},
    )
    folder = export_checkpoint(small_checkpoint.params, small_checkpoint.config, tmp_path, files=files)
    assert not [path.name for path in folder.glob("*config.json") if "someone/repo" in path.read_text()]
