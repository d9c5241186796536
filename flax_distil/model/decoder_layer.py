"""One layer of the Whisper decoder: self-attention, attention to the encoder output, feed-forward."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.model.attention import dot_product_attention, dropout
from flax_distil.model.cache import write_slots
from flax_distil.model.collectives import copy_to_tp, embedding_lookup, fold_in_axis_index
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.int8.fused_layer import finish_layer, project_heads, uses_int8_kernels
from flax_distil.model.layers import feed_forward, layer_norm, split_key
from flax_distil.model.projections import AttentionProjections, Linear

KeyValue = tuple[Array, Array]


class DecoderLayer(nnx.Module):
    """A pre-norm layer of causal self-attention, cross-attention to the encoder states, and feed-forward."""

    def __init__(
        self, config: WhisperConfig, options: ComputeOptions, *, decode_layout: bool = False, rngs: nnx.Rngs
    ):
        width, heads, features = config.d_model, config.decoder_attention_heads, config.decoder_ffn_dim
        dtype, axis = options.dtype, options.sharding.tensor_axis
        common: dict[str, Any] = {"decode_layout": decode_layout, "options": options, "rngs": rngs}
        self.self_attention = AttentionProjections("self_attention", width, heads, **common)
        self.self_attention_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.cross_attention = AttentionProjections("cross_attention", width, heads, **common)
        self.cross_attention_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.fc1 = Linear("fc1", width, features, **common)
        self.fc2 = Linear("fc2", width, features, **common)
        self.final_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.config, self.axis, self.dtype = config, axis, dtype

    def self_key_value(self, y_BTD: Float[Array, "B T D"]) -> KeyValue:
        """Return self-attention keys and values of normalized inputs, [B, N, T, H] each."""
        return self.self_attention.key(y_BTD), self.self_attention.value(y_BTD)

    def cross_attend(
        self,
        y_BTD: Float[Array, "B T D"],
        encoder_out_BSD: Float[Array, "B S D"],
        key: Array | None = None,
    ) -> Float[Array, "B N T H"]:
        """Attend to the encoder states, in the cheaper of two equivalent orders of computation.

        Many queries (training) attend to keys and values that are projected from the states. If there are
        fewer queries than a head has features (decoding), the queries are projected back with the key
        projection and attend to the states themselves, and the weighted means of the states are projected
        with the value projection::

            q · (x K) = (q Kᵀ) · x        softmax(…) (x V + b) = (softmax(…) x) V + b

        The second equation needs probabilities without dropout, which sum to one, so that b is unchanged.
        Thus decoding does not project the states, and its cache only holds the states themselves, which
        all layers and heads share: 2 L times less than the keys and values of all layers.
        """
        project = self.cross_attention
        query_BNTH = project.query(y_BTD)
        rows, heads, length, features = query_BNTH.shape
        dropouts: dict[str, Any] = {
            "dropout_rate": self.config.attention_dropout,
            "dropout_key": fold_in_axis_index(key, self.axis),
        }
        if length >= features or (key is not None and self.config.attention_dropout > 0):
            return dot_product_attention(query_BNTH, *self._state_key_value(encoder_out_BSD), **dropouts)
        back_BNTD = project.key.apply_transposed(query_BNTH)
        shared_B1SD = encoder_out_BSD[:, None]
        mixed_B1QD = dot_product_attention(
            back_BNTD.reshape(rows, 1, heads * length, -1),
            shared_B1SD,
            shared_B1SD,
            scale=features**-0.5,
            **dropouts,
        )
        return project.value.apply_per_head(mixed_B1QD.reshape(back_BNTD.shape))

    def _state_key_value(self, encoder_out_BSD: Float[Array, "B S D"]) -> KeyValue:
        """Return keys and values of all states; on a CPU sample by sample, so that they stay in the cache."""

        def of_batch(encoder_out_BSD: Array) -> KeyValue:
            return self.cross_attention.key(encoder_out_BSD), self.cross_attention.value(encoder_out_BSD)

        def of_samples(encoder_out_BSD: Array) -> KeyValue:
            keys, values = jax.lax.map(of_batch, encoder_out_BSD[:, None])
            return keys[:, 0], values[:, 0]

        branches: dict[str, Any] = {"cpu": of_samples}
        if uses_int8_kernels(self, encoder_out_BSD, None):
            projections = self.cross_attention.key, self.cross_attention.value
            branches["tpu"] = lambda states_BSD: tuple(project_heads(projections, states_BSD))
        return jax.lax.platform_dependent(encoder_out_BSD, **branches, default=of_batch)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        encoder_out_BSD: Float[Array, "B S D"],
        mask_B1TC: Bool[Array, "#B 1 T C"],
        *,
        cached: tuple[KeyValue, Int[Array, " B"] | Int[Array, ""]] | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        """Run the layer on T tokens, which follow the tokens of a cache if one is given.

        Returns:
            The output of the layer, and the self-attention keys and values: those of the cache with the new
            tokens written from each row's offset on, or without a cache those of the new tokens.
        """
        keys = split_key(key, 6)
        x_BTD, own = self.attend_to_tokens(x_BTD, mask_B1TC, cached=cached, keys=keys[:2])
        return self.attend_to_states(x_BTD, encoder_out_BSD, keys=keys[2:]), own

    def attend_to_tokens(
        self,
        x_BTD: Float[Array, "B T D"],
        mask_B1TC: Bool[Array, "#B 1 T C"],
        *,
        cached: tuple[KeyValue, Int[Array, " B"] | Int[Array, ""]] | None = None,
        keys: Sequence[Array | None] = (None, None),
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        """Run the first part of the layer, before its cross-attention."""
        y_BTD = copy_to_tp(self.self_attention_norm(x_BTD), self.axis)
        own = self.self_key_value(y_BTD)
        if cached is not None:
            (past_keys, past_values), offset = cached
            own = write_slots(past_keys, own[0], offset), write_slots(past_values, own[1], offset)
        mixed = dot_product_attention(
            self.self_attention.query(y_BTD),
            *own,
            mask_B1TC,
            dropout_rate=self.config.attention_dropout,
            dropout_key=fold_in_axis_index(keys[0], self.axis),
        )
        return x_BTD + dropout(self.self_attention.out(mixed), self.config.dropout, keys[1]), own

    def attend_to_states(
        self,
        x_BTD: Float[Array, "B T D"],
        encoder_out_BSD: Float[Array, "B S D"],
        *,
        keys: Sequence[Array | None] = (None,) * 4,
    ) -> Float[Array, "B T D"]:
        """Run the second part of the layer, from its cross-attention on."""
        y_BTD = copy_to_tp(self.cross_attention_norm(x_BTD), self.axis)
        mixed_BNTH = self.cross_attend(y_BTD, encoder_out_BSD, keys[0])

        def finish(mixed_BNTH: Array, x_BTD: Array) -> Array:
            return self._finish(mixed_BNTH, x_BTD, keys)

        if not uses_int8_kernels(self, x_BTD, keys[0]):
            return finish(mixed_BNTH, x_BTD)
        by_kernel = functools.partial(finish_layer, self, self.cross_attention.out)
        return jax.lax.platform_dependent(mixed_BNTH, x_BTD, tpu=by_kernel, default=finish)

    def _finish(self, mixed_BNTH: Array, x_BTD: Array, keys: Sequence[Array | None]) -> Array:
        """Return the output of the layer from that of cross-attention."""
        config = self.config
        x_BTD = x_BTD + dropout(self.cross_attention.out(mixed_BNTH), config.dropout, keys[1])
        y_BTD = feed_forward(
            self.fc1, self.fc2, self.final_norm(x_BTD), config.activation_dropout, keys[2], axis=self.axis
        )
        return x_BTD + dropout(y_BTD, config.dropout, keys[3])

    def alignment_qk(
        self, x_BTD: Float[Array, "B T D"], heads: Sequence[int]
    ) -> tuple[Float[Array, "B A T H"], Float[Array, "A D H"]]:
        """Return the cross-attention queries of A heads, and their key projections.

        ``x_BTD`` is the input of :meth:`attend_to_states`. The product of a query and a projected state is a
        score, which is already scaled. Where the heads are divided over devices, every device receives the
        queries of all A heads.
        """
        query, key = self.cross_attention.query, self.cross_attention.key
        query_ADH = self._of_heads(query.by_head(), heads)
        bias_AH = self._of_heads(query.bias[...], heads)  # type: ignore[index]
        query_BATH = jnp.einsum("btd,adh->bath", self.cross_attention_norm(x_BTD), query_ADH)
        query_BATH = (query_BATH + bias_AH[:, None]) * query_ADH.shape[2] ** -0.5
        return query_BATH, self._of_heads(key.by_head(), heads)

    def _of_heads(self, leaf: Array, heads: Sequence[int]) -> Array:
        """Return the entries of some heads of a leaf, whose first axis may be divided over devices."""
        flat_ND = leaf.reshape(leaf.shape[0], -1).astype(self.dtype)
        return embedding_lookup(flat_ND, jnp.asarray(heads)[None], self.axis).reshape(-1, *leaf.shape[1:])
