import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax.serialization import to_bytes
from huggingface_hub import HfApi
from safetensors.numpy import save_file

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.download import OPENAI_MODELS
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.hub.upload import UploadError, check_repository, push_to_hub
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.exporting.formats import openai
from flax_distil.exporting.source import ExportSource
from tests.checkpoints.hub_server import TOKEN, Hub, use_endpoint

# huggingface_hub's own call of httpx, in the upload without Xet.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]


_AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def export(small_checkpoint: Checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    checkpoint = small_checkpoint
    export_checkpoint(checkpoint.params, checkpoint.config, folder, files=checkpoint.files, dtype="float32")
    (folder / "checkpoints" / "checkpoint_1").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint_1" / "state").write_text("of no use to anyone else")
    return folder


def test_pushed_files_are_stored_on_the_hub_byte_for_byte(hub: Hub, export: Path):
    address = push_to_hub(
        export, "someone/student", token=TOKEN, private=True, commit_message="First student"
    )
    commit = hub.commit("someone/student", "main")
    files = {path.name: path.read_bytes() for path in export.iterdir() if path.is_file()}
    assert commit.files.keys() == files.keys()
    assert {name: hub.file("someone/student", name) for name in files} == files
    assert commit.message == "First student"
    assert address == f"{hub.endpoint}/someone/student/commit/{commit.oid}"
    assert "someone/student" in hub.private


def test_pushing_to_a_branch_leaves_the_default_branch_alone(hub: Hub, export: Path):
    push_to_hub(export, "someone/student", token=TOKEN, revision="step-100")
    push_to_hub(export, "someone/student", token=TOKEN, revision="step-100")
    assert hub.commit("someone/student", "main").files == {}
    assert "model.safetensors" in hub.commit("someone/student", "step-100").files


def test_a_checkpoint_comes_back_from_the_hub_as_it_went_there(hub: Hub, export: Path, tmp_path: Path):
    push_to_hub(export, "someone/student", token=TOKEN)
    here, there = load_checkpoint(export), load_checkpoint("someone/student", cache_dir=tmp_path)
    assert there.config == here.config
    assert there.files.tokenizer == here.files.tokenizer
    assert there.files.origin == "someone/student"
    for path, leaf in flatten(here.params).items():
        np.testing.assert_array_equal(leaf, flatten(there.params)[path])


def test_only_the_configuration_is_fetched_when_only_it_is_asked_for(hub: Hub, export: Path, tmp_path: Path):
    push_to_hub(export, "someone/student", token=TOKEN)
    checkpoint = load_checkpoint("someone/student", cache_dir=tmp_path, config_only=True)
    assert checkpoint.params == {}
    assert checkpoint.config == load_checkpoint(export, config_only=True).config
    assert not any("safetensors" in request for request in hub.requests if "resolve" in request)


def test_shards_need_not_be_here_when_only_the_configuration_is_asked_for(
    hub: Hub, small_checkpoint: Checkpoint, tmp_path: Path
):
    model = small_checkpoint
    shards = export_checkpoint(
        model.params, model.config, tmp_path / "shards", files=model.files, max_shard_size=10**6
    )
    assert not (shards / "model.safetensors").exists()
    push_to_hub(shards, "someone/student", token=TOKEN)
    assert (
        load_checkpoint("someone/student", cache_dir=tmp_path / "hub", config_only=True).config
        == model.config
    )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("flax_model.msgpack", "flax_model.msgpack is no complete file of Flax weights"),
        ("tf_model.h5", "^someone/student holds only tf_model.h5.*from_tf=True"),
        ("pytorch_model.bin", "^someone/student holds only pytorch_model.bin.*convert it to safetensors"),
        ("adapter_config.json", "^adapter_config.json of someone/student lacks peft_type"),
    ],
)
def test_a_repository_in_another_format_is_refused_with_how_to_convert_it(
    hub: Hub, export: Path, tmp_path: Path, file: str, message: str
):
    shutil.copytree(export, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "other" / file).write_bytes(b"{}")
    push_to_hub(tmp_path / "other", "someone/student", token=TOKEN)
    with pytest.raises(InputError, match=message):
        load_checkpoint("someone/student", cache_dir=tmp_path)


def test_flax_weights_are_downloaded_where_there_are_no_others(
    hub: Hub, export: Path, small_checkpoint: Checkpoint, tmp_path: Path
):
    folder = tmp_path / "flax"
    shutil.copytree(export, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tree = {"model": {"decoder": {"layer_norm": {"scale": np.ones(24, np.float32)}}}}
    (folder / "flax_model.msgpack").write_bytes(to_bytes(tree))
    push_to_hub(folder, "someone/flax", token=TOKEN)
    with pytest.raises(InputError, match=r"the tensors of someone/flax do not fit .* missing: "):
        load_checkpoint("someone/flax", cache_dir=tmp_path / "hub")
    shutil.copy(export / "model.safetensors", folder)
    push_to_hub(folder, "someone/both", token=TOKEN)
    assert load_checkpoint("someone/both", cache_dir=tmp_path / "hub").params
    assert not list((tmp_path / "hub").glob("models--someone--both/**/*.msgpack"))


def test_a_model_of_openai_whisper_and_an_adapter_are_downloaded_with_what_they_need(
    hub: Hub, export: Path, tiny_en_dir: Path, tmp_path: Path
):
    for name in ("openai", "adapter"):
        (tmp_path / name).mkdir()
    openai.write(ExportSource.from_files(str(tiny_en_dir)), tmp_path / "openai", quantization="float16")
    push_to_hub(tmp_path / "openai", "someone/openai", token=TOKEN)
    found = load_checkpoint("someone/openai", cache_dir=tmp_path / "hub", config_only=True)
    assert found.config == load_checkpoint(tiny_en_dir, config_only=True).config
    push_to_hub(export, "someone/student", token=TOKEN)
    settings = {"peft_type": "LORA", "base_model_name_or_path": "someone/student", "lora_alpha": 8}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    name = "model.decoder.layer_norm.weight"
    tensors = {f"base_model.model.{name}": np.full(24, 0.5, np.float32)}
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    api = HfApi(token=TOKEN)
    api.create_repo("someone/adapter")
    api.upload_folder(repo_id="someone/adapter", folder_path=tmp_path / "adapter")
    merged = load_checkpoint("someone/adapter", cache_dir=tmp_path / "hub")
    assert (np.asarray(merged.params["decoder"]["norm"]["scale"]) == 0.5).all()


@pytest.mark.parametrize(
    ("name", "repo_id"),
    [
        ("tiny.en", "openai/whisper-tiny.en"), ("large-v1", "openai/whisper-large"),
        ("large", "openai/whisper-large-v3"), ("turbo", "openai/whisper-large-v3-turbo"),
    ],
)  # fmt: skip
def test_openais_names_of_its_models_are_those_of_the_hub(
    hub: Hub, export: Path, tmp_path: Path, name: str, repo_id: str, monkeypatch
):
    push_to_hub(export, repo_id, token=TOKEN)
    assert load_checkpoint(name, cache_dir=tmp_path, config_only=True).files.origin == repo_id
    monkeypatch.chdir(tmp_path)
    shutil.copytree(export, tmp_path / name)  # a folder of that name comes first
    assert load_checkpoint(name, config_only=True).files.origin == name


def test_every_model_of_openai_has_its_name_here():
    from whisper import available_models

    assert set(available_models()) == set(OPENAI_MODELS)


def test_a_checkpoint_is_read_from_a_subfolder_of_a_revision(hub: Hub, export: Path, tmp_path: Path):
    from huggingface_hub import HfApi

    api = HfApi(token=TOKEN)
    api.create_repo("someone/student")
    api.create_branch("someone/student", branch="v1")
    api.upload_folder(
        repo_id="someone/student", folder_path=export, path_in_repo="last/best", revision="v1",
        ignore_patterns=["*/*"],
    )  # fmt: skip
    source = ModelSource(
        name="someone/student", revision="v1", subfolder="last/best", cache_dir=str(tmp_path), token=TOKEN
    )
    found, wanted = load_checkpoint(source), load_checkpoint(export)
    assert found.config == wanted.config
    assert found.files.contents() == wanted.files.contents()
    with pytest.raises(
        InputError, match="'someone/student' on the Hugging Face Hub has no subfolder 'first'"
    ):
        load_checkpoint(dataclasses.replace(source, subfolder="first"))
    with pytest.raises(InputError, match=r"subfolder '\.\./other' is not below"):
        dataclasses.replace(source, subfolder="../other")
    assert TOKEN not in repr(source)


def test_a_revision_is_read_by_name(hub: Hub, export: Path, tmp_path: Path):
    push_to_hub(export, "someone/student", token=TOKEN, revision="v1")
    assert (
        load_checkpoint("someone/student", revision="v1", cache_dir=tmp_path, config_only=True).params == {}
    )
    with pytest.raises(InputError, match="at revision 'v2'"):
        load_checkpoint("someone/student", revision="v2", cache_dir=tmp_path)


def test_a_cached_checkpoint_loads_without_the_hub(hub: Hub, export: Path, tmp_path: Path, monkeypatch):
    push_to_hub(export, "someone/student", token=TOKEN)
    load_checkpoint("someone/student", cache_dir=tmp_path)
    use_endpoint(monkeypatch, _AWAY)
    assert load_checkpoint("someone/student", cache_dir=tmp_path).config.decoder_layers == 5


def test_an_unknown_hub_id_is_one_clear_sentence(hub: Hub, tmp_path: Path):
    with pytest.raises(InputError, match=r"^'someone/nothing' is neither a folder here nor a model"):
        load_checkpoint("someone/nothing", cache_dir=tmp_path)


def test_an_unreachable_hub_is_one_clear_sentence(tmp_path: Path, monkeypatch):
    use_endpoint(monkeypatch, _AWAY)
    with pytest.raises(InputError, match="check the name, the connection") as caught:
        load_checkpoint("openai/whisper-tiny.en", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["wrong token", "commit refused", "hub away"])
def test_a_failed_upload_says_where_the_export_is_and_how_to_retry(
    hub: Hub, export: Path, tmp_path: Path, fault: str, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(export, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.refuse_commits = fault == "commit refused"
    if fault == "hub away":
        use_endpoint(monkeypatch, _AWAY)
    token = "hf_wrong" if fault == "wrong token" else TOKEN
    with pytest.raises(UploadError, match="is safe in") as caught:
        push_to_hub(folder, "someone/student", token=token, revision="v1")
    message = str(caught.value)
    names = ("report.html", "run.json", "run.lock", "samples.json", "wandb.json")
    private = " ".join(f"--exclude {name}" for name in names)
    assert f"hf upload someone/student {folder} --exclude '*/*' {private} --revision v1" in message
    assert "\n" not in message
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_without_an_export_is_refused_before_anything_is_sent(hub: Hub, tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        push_to_hub(tmp_path, "someone/student", token=TOKEN)
    assert hub.requests == []


def test_the_retry_command_is_one_that_the_hub_client_understands(hub: Hub, export: Path):
    from huggingface_hub.cli.hf import app

    push_to_hub(export, "someone/student", token=TOKEN)
    hub.branches["someone/student"]["main"].files.clear()
    command = [
        "upload",
        "someone/student",
        os.fspath(export),
        "--exclude",
        "*/*",
        "--exclude",
        "run.*",
        "--token",
        TOKEN,
    ]
    app(command, standalone_mode=False)
    uploaded = hub.commit("someone/student", "main").files
    assert uploaded.keys() == {path.name for path in export.iterdir() if path.is_file()}


def test_a_repository_is_made_before_the_work_below_the_owner_of_the_token(hub: Hub):
    assert check_repository("student", repo_type="model", token=TOKEN, private=True) == "someone/student"
    assert check_repository("lab/labels", repo_type="dataset", token=TOKEN) == "lab/labels"
    assert check_repository("student", repo_type="model", token=TOKEN) == "someone/student"
    assert hub.branches.keys() == {"someone/student", "datasets/lab/labels"}
    assert hub.private == {"someone/student"}


@pytest.mark.parametrize(
    ("name", "token", "sentence"),
    [
        ("student", "hf_wrong", "refuses uploads to the model repository 'student' .*the token may write to"),
        ("someone/read", TOKEN, "refuses uploads to the model repository 'someone/read'"),
        ("someone/..", TOKEN, "refuses uploads to the model repository 'someone/..'"),
        ("student", None, "log in with `hf auth login`, or give hub_token"),
    ],
)
def test_a_repository_that_cannot_be_written_is_refused_before_the_work(
    hub: Hub, name: str, token: str | None, sentence: str, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    check_repository("someone/read", repo_type="model", token=TOKEN)
    hub.read_only.add("someone/read")
    with pytest.raises(InputError, match=sentence) as caught:
        check_repository(name, repo_type="model", token=token)
    assert "\n" not in str(caught.value)
    assert "hf_wrong" not in str(caught.value)


def test_a_hub_that_is_away_at_the_start_may_be_back_at_the_end(monkeypatch, caplog):
    use_endpoint(monkeypatch, _AWAY)
    assert check_repository("someone/student", repo_type="model", token=TOKEN) == "someone/student"
    assert "the upload is tried at the end" in caplog.text
    with pytest.raises(InputError, match="whose repository 'student' is"):
        check_repository("student", repo_type="model", token=TOKEN)
