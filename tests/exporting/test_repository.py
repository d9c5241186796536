"""An export on the Hub: where its formats lie, and its card."""

import json

import pytest
from huggingface_hub import ModelCard

from flax_distil.cli.main import main
from flax_distil.exporting.repository import repository_layout
from tests.checkpoints.hub_server import TOKEN, Hub

# huggingface_hub's own call of httpx, in the upload without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/toy"


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["ct2"], {}),
        (["onnx"], {"onnx": "onnx"}),
        (["hf", "ct2", "onnx"], {"hf": "", "ct2": "ct2", "onnx/onnx": "onnx"}),
        (["onnx", "ggml"], {"onnx": "", "ggml": "ggml"}),
    ],
)
def test_programs_that_look_in_the_repository_itself_find_their_files_there(names, layout):
    assert repository_layout(names) == layout


def test_several_formats_are_one_repository_with_a_card_that_loads_each(hub: Hub, teacher, tmp_path):
    flags = {
        "model_name_or_path": teacher,
        "output_dir": tmp_path / "out",
        "format": "hf,ct2",
        "license": "mit",
    }
    pushes = ["--push_to_hub", f"--hub_token={TOKEN}", f"--hub_model_id={REPO}", "--hub_revision=v1"]
    assert main(["export", *(f"--{name}={value}" for name, value in flags.items()), *pushes]) == 0
    files = hub.commit(REPO, "v1").files
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "export.json"} < files.keys()
    weights = "ct2/model.bin"
    assert hub.file(REPO, "model.safetensors", "v1") == (tmp_path / "out/hf/model.safetensors").read_bytes()
    assert hub.file(REPO, weights, "v1") == (tmp_path / "out" / weights).read_bytes()
    card = ModelCard(hub.file(REPO, "README.md", "v1").decode())
    assert (card.data.license, card.data.language) == ("mit", ["en"])
    assert 'WhisperModel(f"{folder}/ct2")' in card.text
    assert f'from_pretrained("{REPO}")' in card.text
    assert "converted from toy.en with flax-distil" in card.text
    assert str(tmp_path) not in card.text


def test_results_of_an_evaluation_come_into_the_card_and_other_cards_stay(teacher, tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results.json"
    scores = {"wer": 7.25, "wer_interval": [6.0, 8.0], "samples": 80, "rtfx": 120.0}
    model = {"model_name_or_path": str(teacher), "data_sets": {"prompts": {"clean": scores}}}
    document = {"config": {"dataset_name": "prompts"}, "baseline": "toy", "models": {"toy": model}}
    results.write_text(json.dumps(document))
    command = ["export", f"--model_name_or_path={teacher}", f"--output_dir={out}"]
    assert main([*command, f"--eval_results={tmp_path / 'none.json'}"]) == 2
    assert "is not the results.json of `flax-distil eval`" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, f"--eval_results={results}"]) == 0
    card = ModelCard.load(out / "README.md")
    assert card.data.eval_results[0].metric_value == 7.25
    assert "| this model | prompts | 80 | 7.25 | 6.00 to 8.00 | 120.0 |" in card.text
    (out / "README.md").write_text("# Mine")
    assert main([*command, "--license=mit", "--overwrite_output_dir"]) == 0
    assert (out / "README.md").read_text() == "# Mine"
