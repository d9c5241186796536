"""One sentence about training data that are too few, where the hours are known and it matters."""

import dataclasses
import logging

import pytest

from flax_distil.core.nested import build, replace
from flax_distil.data.training.training_data import TrainingData, load_training_data
from flax_distil.data.training.training_sources import TableSource
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.data_hours import warn_of_few_hours
from flax_distil.text.tokenizer import WhisperTokenizer


@pytest.fixture(scope="module")
def config(prompts_dir):
    return build(
        DistillConfig, teacher_model_name_or_path="t", output_dir="o", label_column_name="",
        train_dataset_name=str(prompts_dir / "validation"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_en_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


@pytest.fixture(scope="module")
def train(config, tokenizer) -> TrainingData:
    return load_training_data(config.data, tokenizer)


def with_durations(train: TrainingData, durations) -> TrainingData:
    (source,) = train.sources
    data = source.data.with_columns({"duration": durations})
    return TrainingData(sources=[TableSource(data=data, labels=source.labels)])


def said(caplog, config, train) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="flax_distil"):
        warn_of_few_hours(config, train)
    return caplog.messages


def test_less_than_300_hours_are_told_once_with_source_and_remedy(caplog, config, train):
    (line,) = said(caplog, config, train)
    assert line.startswith(
        f"the training data have {train.hours:.1f} hours, and with less than about 300 hours"
    )
    assert "kotoba-tech/kotoba-whisper" in line
    assert "add data" in line


def test_nothing_is_said_of_enough_data_or_of_unknown_hours(caplog, config, train, tokenizer):
    rows = len(train.sources[0])
    assert said(caplog, config, with_durations(train, [300 * 3600 / rows + 1] * rows)) == []
    assert said(caplog, config, with_durations(train, [None, *[1.0] * (rows - 1)])) == []
    streamed = load_training_data(replace(config, streaming=True).data, tokenizer)
    assert said(caplog, config, streamed) == []


def test_nothing_is_said_of_fine_tuning_without_a_teacher(caplog, config, train):
    alone = dataclasses.replace(
        config, model=dataclasses.replace(config.model, model_name_or_path="m"),
        teacher=dataclasses.replace(config.teacher, teacher_model_name_or_path=None),
    )  # fmt: skip
    assert said(caplog, alone, train) == []
