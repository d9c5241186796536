"""Make modules from a configuration and a parameter tree, without allocating other parameters."""

import functools
import re

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Params
from flax_distil.core.tree import flatten, unflatten
from flax_distil.model.collectives import fsdp_all_gather_outside_layers
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.decoder import Decoder
from flax_distil.model.encoder import Encoder
from flax_distil.model.int8.products import quantize
from flax_distil.model.projections import KERNEL_AXES, OUTPUT_AXES, to_decode_layout

_LAYER_KERNEL = re.compile(r"(.*/)?layers/((?P<number>\d+)/)?(?P<name>[a-z]\w+(/\w+)?)/kernel")


class Whisper(nnx.Module):
    """Encoder and decoder of one Whisper model."""

    def __init__(self, config: WhisperConfig, options: ComputeOptions | None = None, *, rngs: nnx.Rngs):
        options = options or ComputeOptions()
        self.encoder = Encoder(config, options, rngs=rngs)
        self.decoder = Decoder(config, options, rngs=rngs)


@functools.lru_cache(maxsize=32)
def _graphs(config: WhisperConfig, options: ComputeOptions) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    shapes = nnx.eval_shape(lambda: Whisper(config, options, rngs=nnx.Rngs(0)))
    return nnx.graphdef(shapes.encoder), nnx.graphdef(shapes.decoder)


@functools.lru_cache(maxsize=32)
def _decode_graph(config: WhisperConfig, options: ComputeOptions) -> nnx.GraphDef:
    shapes = nnx.eval_shape(lambda: Decoder(config, options, decode_layout=True, rngs=nnx.Rngs(0)))
    return nnx.graphdef(shapes)


def bind_encoder(config: WhisperConfig, options: ComputeOptions, params: Params) -> Encoder:
    """Return the encoder that computes with ``params`` (the ``encoder`` branch of a tree)."""
    return nnx.merge(_graphs(config, options)[0], fsdp_all_gather_outside_layers(params, options.sharding))


def bind_decoder(config: WhisperConfig, options: ComputeOptions, params: Params) -> Decoder:
    """Return the decoder that computes with ``params``, a ``decoder`` branch in either layout."""
    params = fsdp_all_gather_outside_layers(params, options.sharding)
    if not has_decode_layout(params):
        return nnx.merge(_graphs(config, options)[1], params)
    layers = {int(number): layer for number, layer in params["layers"].items()}
    return nnx.merge(_decode_graph(config, options), {**params, "layers": layers})


def to_decode_params(decoder: Params) -> Params:
    """Return the ``decoder`` branch of a tree in the decode layout, unchanged if it has it already.

    In this layout the layers are separate, ``layers/0/…``, ``layers/1/…``, because a program copies every
    layer out of a stack each time it is called. The axes of the kernels are in the order for decoding
    (``model/projections.py``). The layers of numpy arrays are views.
    """
    if has_decode_layout(decoder):
        return decoder
    stack = flatten(decoder["layers"])
    count = len(next(iter(stack.values())))
    layers = {
        str(number): unflatten({path: to_decode_layout(path, leaf[number]) for path, leaf in stack.items()})
        for number in range(count)
    }
    return {**decoder, "layers": layers}


def to_int8_params(params: Params) -> Params:
    """Return a tree, or a branch of one, with the kernels of its layers in int8.

    Beside each such ``kernel`` there is a ``kernel_scale`` in float32, of the shape of a bias. All other
    leaves stay as they are.
    """
    made = {}
    for path, leaf in flatten(params).items():
        made[path] = leaf
        found = _LAYER_KERNEL.fullmatch(path)
        if found:
            axes = KERNEL_AXES[found["name"]][found["number"] is not None]
            inputs = [axes.index(axis) - len(axes) for axis in axes if axis not in OUTPUT_AXES[found["name"]]]
            integers, scale = quantize(leaf, tuple(inputs))
            made[path] = integers
            made[path.replace("/kernel", "/kernel_scale")] = scale.squeeze(tuple(inputs))
    return unflatten(made)


def held_params(params: Params, options: ComputeOptions) -> Params:
    """Return weights in the types in which a model that is not trained holds them.

    These are the compute dtype, and in int8 that of :func:`to_int8_params`, whose scales stay in float32.
    """
    if options.int8:
        params = to_int8_params(params)
    kept = {path for path, leaf in flatten(params).items() if leaf.dtype == jnp.int8}
    kept |= {f"{path}_scale" for path in kept}
    dtype = jnp.dtype(options.dtype)
    return unflatten(
        {path: leaf if path in kept else leaf.astype(dtype) for path, leaf in flatten(params).items()}
    )


def has_decode_layout(decoder: Params) -> bool:
    """Return whether a ``decoder`` branch is in the layout of :func:`to_decode_params`."""
    return "0" in decoder["layers"]


@functools.lru_cache(maxsize=32)
def _shapes(config: WhisperConfig) -> Params:
    shapes = nnx.eval_shape(lambda: Whisper(config, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.state(shapes, nnx.Param))


def whisper_shapes(config: WhisperConfig) -> Params:
    """Return the parameter tree of a model as ``jax.ShapeDtypeStruct`` leaves, without allocating anything.

    The leaves are, with layers stacked on a leading axis L::

        encoder/conv1/{kernel [3, M, D], bias [D]}          encoder/conv2/{kernel [3, D, D], bias}
        encoder/position_embedding/embedding [S, D]         encoder/norm/{scale, bias} [D]
        encoder/layers/self_attention/{query, key, value}/{kernel [L, D, N, H], bias [L, N, H]}
        encoder/layers/self_attention/out/{kernel [L, N, H, D], bias [L, D]}
        encoder/layers/{self_attention_norm, final_norm}/{scale, bias} [L, D]
        encoder/layers/fc1/{kernel [L, D, F], bias [L, F]}  encoder/layers/fc2/{kernel [L, F, D], bias [L, D]}
        decoder/{token_embedding [V, D], position_embedding [T, D]}/embedding
        decoder/layers/… as in the encoder, with cross_attention and cross_attention_norm

    ``key`` has no bias.
    """
    return jax.tree.map(lambda leaf: leaf, _shapes(config))


def decode_shapes(config: WhisperConfig, *, int8: bool = False) -> Params:
    """Return the same tree with the decoder in the layout of :func:`to_decode_params`, possibly in int8."""
    shapes = whisper_shapes(config)
    shapes["decoder"] = jax.eval_shape(to_decode_params, shapes["decoder"])
    return jax.eval_shape(to_int8_params, shapes) if int8 else shapes
