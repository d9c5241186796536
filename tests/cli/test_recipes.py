"""Recipes and files with sections: one file for a chain of commands, of which each reads its own flags."""

import json
import re
from pathlib import Path

import pytest

from flax_distil.cli.config_files import read_config_file
from flax_distil.cli.main import COMMANDS, config_class, main, read_command
from flax_distil.cli.recipes import read_recipe, recipe_names
from flax_distil.core.errors import InputError
from flax_distil.core.nested import all_leaves

GUIDE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
COSTS = GUIDE.partition("## Time and cost")[2]

NEEDED = {
    "pseudo-label": ["--dataset_name=speech", "--output_dir=labelled"],
    "distil": ["--train_dataset_name=labelled", "--output_dir=student"],
    "data inspect": ["--train_dataset_name=labelled", "--model=student"],
    "eval": ["--model=student", "--dataset_name=speech"],
    "plan": [],
}
"""What a user adds to a recipe: names of data, and where results are written."""


def read(command, *flags):
    return read_command(command, [*flags, *NEEDED[command]])


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_configuration_for_each_command_of_its_chain(name):
    sections = read_config_file(f"recipe:{name}")
    assert {"distil", "eval", "plan"} <= sections.keys()
    assert "pseudo-label" in sections or "teacher_model_name_or_path" not in sections["distil"]
    for command in {*sections, "data inspect"}:
        read(command, f"--config=recipe:{name}")
    distil, plan = (read(command, f"--config=recipe:{name}") for command in ("distil", "plan"))
    assert plan.run.training_loss == distil.training_loss
    assert plan.run.global_batch_size == distil.global_batch_size
    assert distil.optimizer.max_steps


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_where_it_comes_from_and_what_it_costs(name):
    heading = read_recipe(name)
    for part in ("# Source: ", "# Data of the original: ", "# Differences: ", "# Planned with "):
        assert f"\n{part}" in heading
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", COSTS, re.MULTILINE)
    for topology, cell in zip(("v4-8", "v5e-8", "v6e-8"), row.split("|"), strict=True):
        (line,) = re.findall(rf"^#   {topology} .*$", heading, re.MULTILINE)
        *_, hours, dollars = line.replace("~", " ").split()
        assert cell.strip(" ≈") == f"{hours} h, {dollars} $"


def test_flags_stand_above_a_recipe_and_recipes_above_earlier_files():
    config = read("distil", "--config=recipe:distil-large-v3", "--max_steps=600", "--kl_weight=0.5")
    assert (config.optimizer.max_steps, config.loss.kl_weight, config.loss.temperature) == (600, 0.5, 2.0)
    later = read("distil", "--config=recipe:distil-large-v3", "--config", "recipe:turbo-like")
    assert later.student.student_decoder_layers == 4


def test_the_weights_of_the_kl_term_go_with_the_data_sets_of_the_bilingual_recipe():
    data = read("distil", "--config=recipe:bilingual").data
    joined = (data.train_dataset_kl_weights, data.labels.language, data.labels.task, data.label_column_name)
    assert {len(value.split("+")) for value in joined} == {4}


def test_an_unknown_recipe_is_refused_with_the_nearest_name_and_all_others(capsys):
    assert main(["distil", "--config=recipe:distil-larg-v3", *NEEDED["distil"]]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: --config: recipe 'distil-larg-v3' is not known, did you mean recipe:distil-la"
    )
    assert f"Known are {', '.join(recipe_names())}" in said
    assert main(["recipes", "qqq"]) == 2
    assert "recipe 'qqq' is not known: expected one of bilingual, " in capsys.readouterr().err


def test_the_command_lists_recipes_and_prints_one_that_can_be_changed(capsys, tmp_path):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split() for line in lines if line.startswith("  ")]
    assert [words[0] for words in listed] == recipe_names()
    assert all(len(words) > 3 for words in listed)
    assert max(map(len, lines)) <= 110
    assert main(["recipes", "kotoba"]) == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text(capsys.readouterr().out.replace("language: ja", "language: ko"))
    assert read("distil", f"--config={mine}").data.labels.language == "ko"


SECTIONS = {
    "pseudo-label": {"model_name_or_path": "t", "language": "de"},
    "distil": {"teacher_model_name_or_path": "t", "loss": {"kl_weight": 0.5}, "language": "de"},
    "plan": {"label_length": 64},
}


@pytest.fixture
def sectioned(tmp_path):
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(SECTIONS))
    return f"--config={path}"


def test_each_command_reads_its_section_which_may_be_grouped(sectioned):
    assert read("pseudo-label", sectioned).decoding.language == "de"
    assert read("distil", sectioned).loss.kl_weight == 0.5


def test_plan_and_data_inspect_read_what_they_share_with_distil(sectioned):
    plan = read("plan", sectioned)
    assert (plan.label_length, plan.run.loss.kl_weight) == (64, 0.5)
    assert read("data inspect", sectioned).data.labels.language == "de"


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({"distil": {}}, "there is no section for 'eval', only for distil"),
        ({"eval": {}, "language": "de"}, "'language' is no section: expected the name of a command"),
        ({"eval": 3}, "'eval' is no section"),
        ({"eval": {"languag": "de"}}, "flag 'languag' is not accepted, did you mean language?"),
    ],
)
def test_a_file_whose_sections_do_not_fit_is_refused(contents, sentence, tmp_path):
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(contents))
    with pytest.raises(InputError) as refusal:
        read("eval", f"--config={path}")
    assert sentence in str(refusal.value)


def test_no_flag_and_no_group_has_the_name_of_a_command():
    names = {
        part
        for command in COMMANDS
        for leaf in all_leaves(config_class(command))
        for part in (leaf.name, *leaf.path)
    }
    assert not names & set(COMMANDS)
