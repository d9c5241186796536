"""The device programs of a window decoder: encoder, language, search; compiled once for all of a shape."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from flax_distil.audio.mel import log_mel
from flax_distil.core.arrays import Array, Params
from flax_distil.decoding.generate import search
from flax_distil.decoding.language import language_probabilities
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.result import GenerateOutput
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
from flax_distil.parallel.partitioner import BATCH, ROWS, Partitioner
from flax_distil.parallel.rules import param_sharding
from flax_distil.text.special_tokens import SpecialTokens


class Shape(NamedTuple):
    """The static part of every program here."""

    config: WhisperConfig
    compute: ComputeOptions


def generate_program(
    partitioner: Partitioner,
    config: WhisperConfig,
    compute: ComputeOptions,
    processors: LogitsProcessors,
    options: SearchOptions | None = None,
    *,
    max_new_tokens: int,
) -> Callable[..., GenerateOutput]:
    """Return the program of a search, ``(decoder, batch) -> GenerateOutput``, as decoders run it.

    The batch has ``encoder_out_BSD``, ``prompt_BP``, ``prompt_length_B`` and ``limit_B``. To look at the
    program ahead of time: nothing is compiled before it is called or lowered.
    """
    shape = shape_on(partitioner, config, compute)
    return jit_decode_fns(partitioner, shape, processors, options or SearchOptions(), max_new_tokens).search


def shape_on(partitioner: Partitioner, config: WhisperConfig, compute: ComputeOptions) -> Shape:
    """Return the static part of programs on these devices."""
    specs = partitioner.weight_specs(decode_shapes(config))
    return Shape(config, dataclasses.replace(compute, sharding=param_sharding(specs)))


def compiled(
    partitioner: Partitioner, shape: Shape, function: Callable[..., Any], weights: str
) -> Callable[..., Any]:
    """Return a program over the devices of ``(weights, batch) -> rows``.

    Args:
        partitioner: over the devices.
        shape: of the model.
        function: of one device.
        weights: the branch it takes, ``encoder``, or ``decoder`` as decoding reads it.
    """
    specs = partitioner.weight_specs(decode_shapes(shape.config))
    return partitioner.jit(partitioner.shard_map(function, in_specs=(specs[weights], BATCH), out_specs=ROWS))


def prepared(partitioner: Partitioner, shape: Shape, decoder: Params) -> Params:
    """Return a ``decoder`` branch as :func:`compiled` takes it: the same if it is for decoding already.

    Otherwise in the compute dtype too, lest every step of a search convert it again.
    """
    return decoder if has_decode_layout(decoder) else _preparation(partitioner, shape)(decoder)


@functools.lru_cache(maxsize=32)
def _preparation(partitioner: Partitioner, shape: Shape) -> Callable[[Params], Params]:
    def prepare(decoder: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf.astype(shape.compute.dtype), to_decode_params(decoder))

    given, made = (
        partitioner.weight_specs(shapes(shape.config)) for shapes in (whisper_shapes, decode_shapes)
    )
    return partitioner.jit(
        partitioner.shard_map(prepare, in_specs=(given["decoder"],), out_specs=made["decoder"])
    )


class DecodeFns(NamedTuple):
    """Compiled once for all decoders of a shape on the same devices."""

    encode_samples: Callable[..., dict[str, Array]]
    encode_features: Callable[..., dict[str, Array]]
    search: Callable[..., GenerateOutput]
    detect: Callable[..., Array]


@functools.lru_cache(maxsize=32)
def jit_decode_fns(
    partitioner: Partitioner,
    shape: Shape,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
) -> DecodeFns:
    """Return the programs of decoders of a shape; nothing is compiled before one is called."""
    encode_samples, encode_features = _encoders(partitioner, shape)
    return DecodeFns(
        encode_samples=encode_samples,
        encode_features=encode_features,
        search=compiled(
            partitioner,
            shape,
            functools.partial(_search, shape, processors, options, max_new_tokens),
            "decoder",
        ),
        detect=_detector(partitioner, shape, processors.special),
    )


@functools.lru_cache(maxsize=32)
def _encoders(partitioner: Partitioner, shape: Shape) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return programs that do not depend on how tokens are searched."""
    return (
        compiled(partitioner, shape, functools.partial(_encode_samples, shape), "encoder"),
        compiled(partitioner, shape, functools.partial(_encode_features, shape), "encoder"),
    )


@functools.lru_cache(maxsize=32)
def _detector(partitioner: Partitioner, shape: Shape, special: SpecialTokens) -> Callable[..., Any]:
    return compiled(partitioner, shape, functools.partial(_detect, shape, special), "decoder")


def _encode_samples(shape: Shape, encoder: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
    mel_BRM = log_mel(batch["samples_BW"], num_mel_bins=shape.config.num_mel_bins)
    return {"encoder_out_BSD": bind_encoder(shape.config, shape.compute, encoder)(mel_BRM)[0]}


def _encode_features(shape: Shape, encoder: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
    return {"encoder_out_BSD": bind_encoder(shape.config, shape.compute, encoder)(batch["mel_BRM"])[0]}


def _search(
    shape: Shape,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
    decoder: Params,
    batch: Mapping[str, Array],
) -> GenerateOutput:
    return search(
        bind_decoder(shape.config, shape.compute, decoder),
        batch["encoder_out_BSD"],
        batch["prompt_BP"],
        batch["prompt_length_B"],
        processors=processors,
        options=options,
        max_new_tokens=max_new_tokens,
        limit_B=batch["limit_B"],
        temperature_B=batch.get("temperature_B"),
        seed_B=batch.get("seed_B"),
        prefix_length_B=batch.get("prefix_length_B"),
    )


def _detect(shape: Shape, special: SpecialTokens, decoder: Params, batch: Mapping[str, Array]) -> Array:
    bound = bind_decoder(shape.config, shape.compute, decoder)
    return language_probabilities(bound, batch["encoder_out_BSD"], special)
