"""Data sets have weights of their own in the KL term, and rows carry them to the loss."""

from itertools import islice

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_data import load_training_data, training_pipeline
from flax_distil.distillation.config import DistillConfig
from tests.data.conftest import CORPUS


def config(**settings):
    given = {"train_dataset_name": f"{CORPUS}+{CORPUS}", "label_column_name": "", "max_train_samples": 6}
    return build(TrainingDataConfig, given | settings)


def test_rows_have_the_weight_of_their_data_set_after_a_resume_too(english_tokenizer):
    data = load_training_data(config(train_dataset_kl_weights="1+0.25"), english_tokenizer)

    def opened():
        return training_pipeline(config(), data, PipelineConfig(batch_size=4, num_threads=2), seed=0)

    first = opened()
    batches = list(islice(first, 3))
    state = first.get_state()
    first.close()
    second = opened()
    second.set_state(state)
    batches += islice(second, 2)
    second.close()
    for batch in batches:
        np.testing.assert_array_equal(batch.kl_weight_B, np.where(batch.source_B == 0, 1.0, 0.25))
        assert batch.kl_weight_B.dtype == np.float32
    assert {int(source) for batch in batches for source in batch.source_B} == {0, 1}


def test_batches_have_no_weights_where_none_are_given(english_tokenizer):
    data = load_training_data(config(), english_tokenizer)
    pipeline = training_pipeline(config(), data, PipelineConfig(batch_size=4, num_threads=2), seed=0)
    assert next(pipeline).kl_weight_B is None
    pipeline.close()


@pytest.mark.parametrize("weights", ["1+x", "1+-1", "1+", "1+inf"])
def test_what_are_no_weights_is_refused(weights, english_tokenizer):
    with pytest.raises(InputError, match="is not made of numbers from 0 on"):
        load_training_data(config(train_dataset_kl_weights=weights), english_tokenizer)


def test_as_many_weights_as_data_sets_are_needed(english_tokenizer):
    with pytest.raises(InputError, match=r"3 KL weights \(1\+0\+1\) for 2 data sets"):
        load_training_data(config(train_dataset_kl_weights="1+0+1"), english_tokenizer)


@pytest.mark.parametrize("without", [{"model_name_or_path": "m"}, {"kl_weight": 0.0}])
def test_weights_without_a_kl_term_are_refused(without):
    given = {"train_dataset_name": "a+b", "output_dir": "o", "train_dataset_kl_weights": "1+0"}
    teacher = {} if "model_name_or_path" in without else {"teacher_model_name_or_path": "t"}
    with pytest.raises(InputError, match="train_dataset_kl_weights '1\\+0' has no KL term to scale"):
        build(DistillConfig, given | teacher | without)
