"""The compiled functions of a generator: encoder, language detection and decode loop."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from flax_distil.audio.mel import log_mel
from flax_distil.core.arrays import Array, Params
from flax_distil.decoding.continuous import EndedWindows, RefillableLoop, RowsInProgress, decode_queue
from flax_distil.decoding.language import language_probabilities
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import DecodeLoop, decode_to_the_end
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
from flax_distil.parallel.peak_flops import check_int8
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
        """Return the shape of a model whose weights lie on these devices.

        Raises:
            InputError: If int8 is asked of devices that have no products of it.
        """
        first = partitioner.mesh.devices.flat[0]
        compute = compute.on(first.platform)
        if compute.int8:
            check_int8(first.device_kind)
        specs = partitioner.weight_specs(decode_shapes(config, int8=compute.int8))
        return cls(config, dataclasses.replace(compute, sharding=param_sharding(specs)))

    def weight_specs(self, partitioner: Partitioner) -> Params:
        """Return how its weights lie on the devices, with the decoder in the layout of decoding."""
        return partitioner.weight_specs(decode_shapes(self.config, int8=self.compute.int8))

    def bind_decoder(self, params: Params) -> Decoder:
        """Return the decoder that computes with these weights."""
        return bind_decoder(self.config, self.compute, params)


class SearchFns(NamedTuple):
    """Functions that find tokens, of weights and a batch, over all devices.

    Attributes:
        generate: Maps the fields of ``GenerateInputs`` to a ``GenerateOutput``.
        free_rows: Maps the same to as many free rows.
        decode_queue: Maps rows, which it uses up, and the same with ``ticket_B`` and ``most_left_B`` to rows
            and the windows that have ended; see ``continuous.decode_queue``. Of ``most_left_B`` the highest
            value on a device counts.
    """

    generate: Callable[..., GenerateOutput]
    free_rows: Callable[..., RowsInProgress]
    decode_queue: Callable[..., tuple[RowsInProgress, EndedWindows]]

    def of_weights(self, *weights: Params | Array) -> "SearchFns":
        """Return the same functions with their weights."""
        return SearchFns(
            generate=functools.partial(self.generate, *weights),
            free_rows=functools.partial(self.free_rows, *weights),
            decode_queue=functools.partial(self.decode_queue, *weights),
        )


class DecodeFns(NamedTuple):
    """Functions of weights and a batch, over all devices; each is compiled when it is first called.

    Attributes:
        encode_samples: Maps ``samples_BW`` to ``encoder_out_BSD``.
        encode_features: Maps ``mel_BRM`` to ``encoder_out_BSD``.
        detect_language: Maps ``encoder_out_BSD`` to the probability of every language.
        search: Find the tokens.
    """

    encode_samples: Callable[[Params, Batch], dict[str, Array]]
    encode_features: Callable[[Params, Batch], dict[str, Array]]
    detect_language: Callable[[Params, Batch], Array]
    search: SearchFns


def jit_decode_fns(
    partitioner: Partitioner,
    shape: ModelShape,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
) -> DecodeFns:
    """Return the functions of a model; equal arguments give the same compiled functions."""
    jit = functools.partial(jit_rows, partitioner, shape)
    make_loop = functools.partial(
        _decode_loop, shape, processors=processors, options=options, max_new_tokens=max_new_tokens
    )
    return DecodeFns(
        encode_samples=jit(functools.partial(_encode_samples, shape), "encoder"),
        encode_features=jit(functools.partial(_encode_features, shape), "encoder"),
        detect_language=jit(functools.partial(_detect_language, shape, processors.special), "decoder"),
        search=jit_search(partitioner, make_loop, (decoder_specs(partitioner, shape),)),
    )


def jit_search(
    partitioner: Partitioner, make_loop: Callable[..., RefillableLoop], weight_specs: tuple[Any, ...]
) -> SearchFns:
    """Return the functions that find tokens.

    Args:
        partitioner: The devices.
        make_loop: Returns the decode loop of weights and ``GenerateInputs``; a ``functools.partial`` of
            hashable values, so that each function is compiled once.
        weight_specs: How the weights are laid over the devices, for each argument.
    """
    given = (*weight_specs, ROWS)
    return SearchFns(
        generate=partitioner.jit(functools.partial(_generate, make_loop), in_specs=given, out_specs=ROWS),
        free_rows=partitioner.jit(functools.partial(_free_rows, make_loop), in_specs=given, out_specs=ROWS),
        decode_queue=partitioner.jit(
            functools.partial(_decode_queue, make_loop),
            in_specs=(*given, ROWS),
            out_specs=(ROWS, ROWS),
            donate_argnums=(len(weight_specs),),
        ),
    )


def decoder_specs(partitioner: Partitioner, shape: ModelShape) -> Any:
    """Return how a decoder in the layout of decoding is laid over the devices."""
    return shape.weight_specs(partitioner)["decoder"]


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
    specs = shape.weight_specs(partitioner)
    return partitioner.jit(function, in_specs=(specs[branch], ROWS), out_specs=ROWS)


def decoder_params(partitioner: Partitioner, shape: ModelShape, decoder: Params) -> Params:
    """Return a ``decoder`` branch in the layout of decoding and in the compute dtype.

    Otherwise every decoding step would convert it again. A branch that has the layout is returned as it is;
    one in int8 must have it.
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


def _generate(make_loop: Callable[..., RefillableLoop], *weights_and_batch: Any) -> GenerateOutput:
    *weights, batch = weights_and_batch
    inputs = GenerateInputs(**batch)
    output: GenerateOutput = decode_to_the_end(make_loop(*weights, inputs), inputs)
    return output


def _free_rows(make_loop: Callable[..., RefillableLoop], *weights_and_batch: Any) -> RowsInProgress:
    *weights, batch = weights_and_batch
    inputs = GenerateInputs(**batch)
    loop = make_loop(*weights, inputs)
    return RowsInProgress.none(loop.begin(inputs, loop.sizes[0]))


def _decode_queue(
    make_loop: Callable[..., RefillableLoop], *weights_rows_and_batch: Any
) -> tuple[RowsInProgress, EndedWindows]:
    *weights, rows, batch = weights_rows_and_batch
    batch = dict(batch)
    ticket_B, most_left_B = batch.pop("ticket_B"), batch.pop("most_left_B")
    inputs = GenerateInputs(**batch)
    return decode_queue(make_loop(*weights, inputs), rows, inputs, ticket_B, most_left_B.max())


def _decode_loop(shape: ModelShape, decoder: Params, inputs: GenerateInputs, **settings: Any) -> DecodeLoop:
    return DecodeLoop.of_inputs(shape.bind_decoder(decoder), inputs, **settings)


def _detect_language(shape: ModelShape, special: SpecialTokens, decoder: Params, batch: Batch) -> Array:
    return language_probabilities(shape.bind_decoder(decoder), batch["encoder_out_BSD"], special)
