import numpy as np
import pytest
from transformers import WhisperConfig as TorchConfig
from transformers import WhisperForConditionalGeneration

from flax_distil.checkpoints.formats.mapping import (
    CONVOLUTION,
    FROM_HEADS,
    HEADS,
    MATRIX,
    PARAM_MAPPINGS,
    TABLE,
    TIED_PROJECTION,
    TO_HEADS,
    VECTOR,
    canonical_name,
    tensor_locations,
)
from flax_distil.core.tree import flatten
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import PRESETS, WhisperConfig


def test_every_leaf_of_the_model_has_exactly_one_row(small_config: WhisperConfig):
    assert sorted(mapping.path for mapping in PARAM_MAPPINGS) == sorted(flatten(whisper_shapes(small_config)))


def test_names_and_shapes_are_those_of_transformers(small_config: WhisperConfig):
    sizes = small_config.to_huggingface() | {"vocab_size": 30, "pad_token_id": 0}
    model = WhisperForConditionalGeneration(TorchConfig(**sizes))
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    del theirs[TIED_PROJECTION]
    small = WhisperConfig(**small_config.to_huggingface() | {"vocab_size": 30})
    assert {name: location.shape for name, location in tensor_locations(small).items()} == theirs


def test_large_v3_has_the_1259_tensors_it_is_published_with():
    assert len(tensor_locations(PRESETS["large-v3"])) == 1259


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (VECTOR, (5,)),
        (TABLE, (5, 3)),
        (MATRIX, (5, 3)),
        (CONVOLUTION, (3, 5, 7)),
        (TO_HEADS, (6, 2, 3)),
        (FROM_HEADS, (2, 3, 7)),
        (HEADS, (2, 3)),
    ],
)
def test_a_layout_read_back_is_the_array_that_was_written(layout, shape):
    array = np.random.default_rng(0).normal(size=shape)
    tensor = layout.to_huggingface(array)
    assert tensor.shape == layout.huggingface_shape(shape)
    np.testing.assert_array_equal(layout.from_huggingface(tensor, shape), array)


def test_rows_of_a_projection_are_head_by_head():
    weight = np.arange(12.0).reshape(6, 2)  # [N·H, D] with 3 heads of 2 features, width 2
    kernel = TO_HEADS.from_huggingface(weight, (2, 3, 2))
    assert kernel[1, 2, 0] == weight[2 * 2 + 0, 1]
    out = FROM_HEADS.from_huggingface(weight.T, (3, 2, 2))  # [D, N·H]
    assert out[2, 0, 1] == weight.T[1, 2 * 2 + 0]


def test_names_of_the_bare_encoder_and_decoder_gain_their_prefix():
    assert canonical_name("encoder.conv1.bias") == "model.encoder.conv1.bias"
    assert canonical_name("model.encoder.conv1.bias") == "model.encoder.conv1.bias"
    assert canonical_name("proj_out.weight") == "proj_out.weight"
