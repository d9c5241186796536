"""Published shapes, counted; configurations that no Whisper has, refused."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
import torch
import transformers

from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.assembly import Whisper, whisper_shapes
from flax_distil.model.config import PRESETS, WhisperConfig
from flax_distil.model.encoder import sinusoids
from tests.model.programs import compiled, init_params

PUBLISHED_MILLIONS = {
    "tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "large-v2": 1550, "large-v3": 1550,
    "large-v3-turbo": 809,
}  # fmt: skip
"""As OpenAI's model card gives them, ".en" alike."""


def parameter_count(config: WhisperConfig) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(whisper_shapes(config)))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_the_published_number_of_parameters(name):
    config = WhisperConfig.preset(f"openai/whisper-{name}")
    count = parameter_count(config)
    # tiny and base are given without their encoder's fixed positions and with rounding up.
    assert count / 1e6 == pytest.approx(PUBLISHED_MILLIONS[name.removesuffix(".en")], rel=0.04)
    with torch.device("meta"):
        theirs = transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(**config.to_huggingface())
        )
    assert count == sum(leaf.numel() for leaf in theirs.parameters())


def test_shapes_are_those_of_the_parameters_and_allocate_nothing(config, params):
    shapes = flatten(whisper_shapes(config))
    assert {path: leaf.shape for path, leaf in flatten(params).items()} == {
        path: leaf.shape for path, leaf in shapes.items()
    }
    assert all(
        isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == np.float32 for leaf in shapes.values()
    )


def test_initialization_depends_on_the_key_alone_and_keeps_the_sinusoids(config):
    init = compiled(functools.partial(init_params, config))
    one, again, other = (flatten(init(jax.random.key(seed))) for seed in (0, 0, 1))
    path = "decoder/layers/fc1/kernel"
    np.testing.assert_array_equal(one[path], again[path])
    assert np.abs(one[path] - other[path]).max() > 0
    np.testing.assert_array_equal(one["encoder/position_embedding/embedding"], sinusoids(20, 16))


def test_positions_are_sines_then_cosines():
    table = sinusoids(1500, 384)
    assert table.shape == (1500, 384)
    np.testing.assert_allclose(table[7, 0], np.sin(7), rtol=1e-6)
    np.testing.assert_allclose(table[7, 192], np.cos(7), rtol=1e-6)
    np.testing.assert_allclose(table[1499, 191], np.sin(1499 / 10_000), rtol=1e-5)


def test_the_whole_model_is_encoder_and_decoder(config):
    from flax import nnx

    model = nnx.eval_shape(lambda: Whisper(config, rngs=nnx.Rngs(0)))
    assert set(nnx.to_pure_dict(nnx.state(model, nnx.Param))) == {"encoder", "decoder"}


def test_a_configuration_survives_hugging_face_and_ignores_what_it_does_not_know(config):
    config = dataclasses.replace(config, num_mel_bins=80)
    values = config.to_huggingface() | {"torch_dtype": "float16", "model_type": "whisper"}
    assert WhisperConfig.from_huggingface(values) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "got model_type 'bart'"),
        ({"model_type": ["whisper"]}, r"got model_type \['whisper'\]"),
        ({"activation_function": "relu"}, "has activation_function 'relu': expected 'gelu'"),
        ({"scale_embedding": True}, "has scale_embedding true: expected false"),
        ({"d_model": 100_000}, "has d_model 100000: expected a whole number from 1 to 16384"),
        ({"encoder_layers": 1.5}, "has encoder_layers 1.5: expected a whole number from 1 to 1024"),
        ({"encoder_layers": True}, "has encoder_layers true: expected a whole number"),
        ({"decoder_layers": []}, r"has decoder_layers \[\]: expected a whole number"),
        ({"encoder_ffn_dim": -1}, "has encoder_ffn_dim -1: expected a whole number"),
        ({"decoder_ffn_dim": "nan"}, "has decoder_ffn_dim 'nan': expected a whole number"),
        ({"num_mel_bins": 8}, "has num_mel_bins 8: expected 80 or 128"),
        ({"decoder_attention_heads": 0}, "has decoder_attention_heads 0: expected a whole number from 1"),
        ({"decoder_attention_heads": 3}, "d_model 16 is not divisible by decoder_attention_heads 3"),
        ({"max_source_positions": 1501}, "has max_source_positions 1501: expected .* from 1 to 1500"),
        ({"max_target_positions": {}}, "has max_target_positions {}: expected a whole number"),
        ({"dropout": 1}, "has dropout 1: expected a number from 0 to below 1"),
        ({"activation_dropout": float("nan")}, "has activation_dropout nan: expected a number from 0"),
        ({"eos_token_id": "a"}, "has eos_token_id 'a': expected a whole number"),
    ],
)
def test_what_is_no_whisper_is_refused_with_file_field_value_and_what_was_expected(config, change, message):
    values = dataclasses.replace(config, num_mel_bins=80).to_huggingface() | change
    with pytest.raises(InputError, match=f"^config.json of it.*{message}"):
        WhisperConfig.from_huggingface(values, name="config.json of it")


def test_null_means_the_default(config):
    values = dataclasses.replace(config, num_mel_bins=80).to_huggingface() | {"dropout": None}
    assert WhisperConfig.from_huggingface(values).dropout == 0


def test_missing_fields_are_all_named(config):
    values = config.to_huggingface()
    del values["d_model"], values["vocab_size"]
    with pytest.raises(InputError, match=r"lacks d_model, vocab_size"):
        WhisperConfig.from_huggingface(values)


def test_heads_that_do_not_divide_the_width_are_refused(config):
    with pytest.raises(InputError, match="d_model 16 is not divisible by decoder_attention_heads 3"):
        dataclasses.replace(config, decoder_attention_heads=3)


def test_an_unknown_size_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown Whisper size 'huge': expected one of tiny, base"):
        WhisperConfig.preset("huge")
