"""The Whisper encoder: two convolutions, sinusoidal positions, pre-norm layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_distil.core.arrays import Array, Float
from flax_distil.model.attention import dot_product_attention, dropout
from flax_distil.model.collectives import copy_to_tp, fold_in_axis_index
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.int8.fused_layer import finish_layer, project_heads, uses_int8_kernels
from flax_distil.model.layers import feed_forward, gelu, layer_norm, run_stack, split_key, stack_of
from flax_distil.model.projections import AttentionProjections, Linear


def sinusoids(positions: int, width: int) -> Float[np.ndarray, "S D"]:
    """Return the fixed position embedding of Whisper: sines, then cosines, with periods from 2π to 20,000π.

    Source: arXiv 2212.04356, section 2.2; ``sinusoids`` of openai/whisper.
    """
    rates = np.exp(-np.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(positions)[:, None] * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class EncoderLayer(nnx.Module):
    """A pre-norm layer of self-attention and feed-forward."""

    def __init__(self, config: WhisperConfig, options: ComputeOptions, *, rngs: nnx.Rngs):
        width, dtype, axis = config.d_model, options.dtype, options.sharding.tensor_axis
        common: dict[str, Any] = {"decode_layout": False, "options": options, "rngs": rngs}
        self.self_attention = AttentionProjections(
            "self_attention", width, config.encoder_attention_heads, **common
        )
        self.self_attention_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.fc1 = Linear("fc1", width, config.encoder_ffn_dim, **common)
        self.fc2 = Linear("fc2", width, config.encoder_ffn_dim, **common)
        self.final_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.config, self.axis = config, axis

    def __call__(self, x_BSD: Float[Array, "B S D"], key: Array | None = None) -> Float[Array, "B S D"]:
        """Run the layer; ``key`` is the random key for its dropouts while training."""
        if uses_int8_kernels(self, x_BSD, key):
            return jax.lax.platform_dependent(x_BSD, tpu=self._run_int8_kernels, default=self._run)
        return self._run(x_BSD, key)

    def _run_int8_kernels(
        self, x_BSD: Float[Array, "B S D"], *, interpret: bool = False
    ) -> Float[Array, "B S D"]:
        project = self.self_attention
        query_BNSH, key_BNSH, value_BNSH = project_heads(
            (project.query, project.key, project.value),
            x_BSD,
            self.self_attention_norm,
            query_scale=project.query.kernel.shape[-1] ** -0.5,
            interpret=interpret,
        )
        mixed_BNSH = dot_product_attention(query_BNSH, key_BNSH, value_BNSH, scale=1.0)
        return finish_layer(self, project.out, mixed_BNSH, x_BSD, interpret=interpret)

    def _run(self, x_BSD: Float[Array, "B S D"], key: Array | None = None) -> Float[Array, "B S D"]:
        config = self.config
        keys = split_key(key, 4)
        project = self.self_attention
        y_BSD = copy_to_tp(self.self_attention_norm(x_BSD), self.axis)
        mixed_BNSH = dot_product_attention(
            project.query(y_BSD),
            project.key(y_BSD),
            project.value(y_BSD),
            dropout_rate=config.attention_dropout,
            dropout_key=fold_in_axis_index(keys[0], self.axis),
        )
        x_BSD = x_BSD + dropout(project.out(mixed_BNSH), config.dropout, keys[1])
        y_BSD = feed_forward(
            self.fc1, self.fc2, self.final_norm(x_BSD), config.activation_dropout, keys[2], axis=self.axis
        )
        return x_BSD + dropout(y_BSD, config.dropout, keys[3])


class Encoder(nnx.Module):
    """The encoder, which computes encoder states from mel frames."""

    def __init__(self, config: WhisperConfig, options: ComputeOptions, *, rngs: nnx.Rngs):
        width, dtype = config.d_model, options.dtype
        self.conv1 = nnx.Conv(config.num_mel_bins, width, (3,), padding=1, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3,), strides=2, padding=1, dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_source_positions, width, dtype=dtype, rngs=rngs)
        self.position_embedding.embedding[...] = jnp.asarray(sinusoids(config.max_source_positions, width))
        self.layers = stack_of(lambda r: EncoderLayer(config, options, rngs=r), config.encoder_layers, rngs)
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.config = config
        self.options = options

    def __call__(
        self, mel_BRM: Float[Array, "B R M"], key: Array | None = None, *, collect_layers: bool = False
    ) -> tuple[Float[Array, "B S D"], Float[Array, "L B S D"] | None]:
        """Run the encoder on log-mel frames.

        Args:
            mel_BRM: Log-mel frames of 10 ms; R is even, and at most twice ``max_source_positions``.
            key: Random key of the dropouts while training.
            collect_layers: Whether to return the outputs of all layers too.

        Returns:
            Encoder states of 20 ms each [B, R / 2, D], and the outputs of all layers before the final norm
            [L, B, R / 2, D] in the compute dtype, or None unless asked for.

        Raises:
            ValueError: If R is odd or too large, or M is not the model's number of mel bins.
        """
        frames, bins = mel_BRM.shape[1:]
        longest = 2 * self.config.max_source_positions
        if bins != self.config.num_mel_bins:
            raise ValueError(f"expected {self.config.num_mel_bins} mel bins, got {bins}")
        if frames % 2 or frames > longest:
            raise ValueError(f"expected an even number of at most {longest} frames, got {frames}")
        mel_BRM = mel_BRM.astype(self.options.dtype)
        if collect_layers or key is not None:
            return self._run_batch(mel_BRM, key, collect_layers=collect_layers)

        def by_sample(mel_BRM: Array) -> Array:
            """Run the samples one by one, because the activations of one sample fit the cache of a CPU."""
            return jax.lax.map(lambda mel_RM: self._run_batch(mel_RM[None])[0][0], mel_BRM)

        def at_once(mel_BRM: Array) -> Array:
            return self._run_batch(mel_BRM)[0]

        return jax.lax.platform_dependent(mel_BRM, cpu=by_sample, default=at_once), None

    def _run_batch(
        self, mel_BRM: Array, key: Array | None = None, *, collect_layers: bool = False
    ) -> tuple[Array, Array | None]:
        first_key, stack_key = split_key(key, 2)
        x_BSD = gelu(self.conv2(gelu(self.conv1(mel_BRM))))
        x_BSD = x_BSD + self.position_embedding.embedding[...].astype(self.options.dtype)[: x_BSD.shape[1]]
        x_BSD, layers_LBSD = run_stack(
            self.layers,
            lambda layer, x, k: layer(x, k),
            dropout(x_BSD, self.config.dropout, first_key),
            options=self.options,
            key=stack_key,
            collect_layers=collect_layers,
        )
        return self.norm(x_BSD), layers_LBSD
