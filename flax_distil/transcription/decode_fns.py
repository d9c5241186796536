"""The compiled functions of a generator: encoder, language detection and decode loop."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from flax_distil.audio.mel import log_mel
from flax_distil.core.arrays import Array, Params
from flax_distil.decoding.language import language_probabilities
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs, GenerateOutput
from flax_distil.model.assembly import (
    bind_decoder,
    bind_encoder,
    decode_shapes,
    has_decode_layout,
    to_decode_params,
    whisper_shapes,
)
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.decoder import Decoder
from flax_distil.parallel.partitioner import ROWS, Partitioner
from flax_distil.parallel.rules import param_sharding
from flax_distil.text.special_tokens import SpecialTokens

Batch = Mapping[str, Array]


class ModelShape(NamedTuple):
    """The static part of every function here: a model without its weights.

    Attributes:
        config: Shape of the model.
        compute: How it computes, and how its weights are sharded.
    """

    config: WhisperConfig
    compute: ComputeOptions

    @classmethod
    def on(cls, partitioner: Partitioner, config: WhisperConfig, compute: ComputeOptions) -> "ModelShape":
        """Return the shape of a model whose weights lie on these devices."""
        specs = partitioner.weight_specs(decode_shapes(config))
        return cls(config, dataclasses.replace(compute, sharding=param_sharding(specs)))

    def bind_decoder(self, params: Params) -> Decoder:
        """Return the decoder that computes with these weights."""
        return bind_decoder(self.config, self.compute, params)


class DecodeFns(NamedTuple):
    """Functions of weights and a batch, over all devices; each is compiled when it is first called.

    Attributes:
        encode_samples: Maps ``samples_BW`` to ``encoder_out_BSD``.
        encode_features: Maps ``mel_BRM`` to ``encoder_out_BSD``.
        generate: Maps the fields of ``GenerateInputs`` to a ``GenerateOutput``.
        detect_language: Maps ``encoder_out_BSD`` to the probability of every language.
    """

    encode_samples: Callable[[Params, Batch], dict[str, Array]]
    encode_features: Callable[[Params, Batch], dict[str, Array]]
    generate: Callable[[Params, Batch], GenerateOutput]
    detect_language: Callable[[Params, Batch], Array]


def jit_decode_fns(
    partitioner: Partitioner,
    shape: ModelShape,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
) -> DecodeFns:
    """Return the functions of a model; equal arguments give the same compiled functions."""
    jit = functools.partial(jit_rows, partitioner, shape)
    settings: dict[str, Any] = {
        "processors": processors,
        "options": options,
        "max_new_tokens": max_new_tokens,
    }
    return DecodeFns(
        encode_samples=jit(functools.partial(_encode_samples, shape), "encoder"),
        encode_features=jit(functools.partial(_encode_features, shape), "encoder"),
        generate=jit(functools.partial(_generate, shape, **settings), "decoder"),
        detect_language=jit(functools.partial(_detect_language, shape, processors.special), "decoder"),
    )


def jit_rows(
    partitioner: Partitioner, shape: ModelShape, function: Callable[..., Any], branch: str
) -> Callable[..., Any]:
    """Compile a function ``(weights, batch) -> rows`` of one device for all devices.

    Args:
        partitioner: The devices.
        shape: The model.
        function: A ``functools.partial`` of hashable values, so that it is compiled once.
        branch: The weights it takes: ``encoder``, or ``decoder`` in the layout of decoding.
    """
    specs = partitioner.weight_specs(decode_shapes(shape.config))
    return partitioner.jit(function, in_specs=(specs[branch], ROWS), out_specs=ROWS)


def decoder_params(partitioner: Partitioner, shape: ModelShape, decoder: Params) -> Params:
    """Return a ``decoder`` branch in the layout of decoding and in the compute dtype.

    Otherwise every decoding step would convert it again. A branch that has the layout is returned as it is.
    """
    if has_decode_layout(decoder):
        return decoder
    given, made = (
        partitioner.weight_specs(of(shape.config))["decoder"] for of in (whisper_shapes, decode_shapes)
    )
    convert = functools.partial(_to_decode_params, shape)
    converted: Params = partitioner.jit(convert, in_specs=(given,), out_specs=made)(decoder)
    return converted


def _to_decode_params(shape: ModelShape, decoder: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(shape.compute.dtype), to_decode_params(decoder))


def _encode_samples(shape: ModelShape, encoder: Params, batch: Batch) -> dict[str, Array]:
    mel_BRM = log_mel(batch["samples_BW"], num_mel_bins=shape.config.num_mel_bins)
    return _encode_features(shape, encoder, {"mel_BRM": mel_BRM})


def _encode_features(shape: ModelShape, encoder: Params, batch: Batch) -> dict[str, Array]:
    return {"encoder_out_BSD": bind_encoder(shape.config, shape.compute, encoder)(batch["mel_BRM"])[0]}


def _generate(shape: ModelShape, decoder: Params, batch: Batch, **settings: Any) -> GenerateOutput:
    return generate(shape.bind_decoder(decoder), GenerateInputs(**batch), **settings)


def _detect_language(shape: ModelShape, special: SpecialTokens, decoder: Params, batch: Batch) -> Array:
    return language_probabilities(shape.bind_decoder(decoder), batch["encoder_out_BSD"], special)
