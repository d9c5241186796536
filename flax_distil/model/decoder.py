"""The Whisper decoder: it runs whole sequences in training, and new tokens with a cache in decoding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.model.attention import dropout
from flax_distil.model.cache import DecoderCache, visible_slots
from flax_distil.model.collectives import copy_to_tp, embedding_lookup
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.decoder_layer import DecoderLayer
from flax_distil.model.layers import layer_norm, run_stack, split_key, stack_of, unstack
from flax_distil.model.projections import project_onto_tokens


class ForwardOutput(NamedTuple):
    """Outputs of the decoder for whole sequences.

    Attributes:
        hidden_BTD: Hidden states after the final norm, ready for :meth:`Decoder.logits`.
        embedding_VD: Token embedding, which is also the output projection, in the compute dtype.
        layers_LBTD: Outputs of all layers before the final norm, in the compute dtype; None unless asked for.
    """

    hidden_BTD: Float[Array, "B T D"]
    embedding_VD: Float[Array, "V D"]
    layers_LBTD: Float[Array, "L B T D"] | None = None

    @property
    def flat_hidden_PD(self) -> Float[Array, "P D"]:
        """The hidden states, flattened over batch and time."""
        return self.hidden_BTD.reshape(-1, self.hidden_BTD.shape[-1])


class Decoder(nnx.Module):
    """The decoder, which computes hidden states and logits from tokens and encoder states.

    Its layers are stacked in the training layout; in the decode layout they are separate, with kernels in the
    order for decoding.
    """

    def __init__(
        self, config: WhisperConfig, options: ComputeOptions, *, decode_layout: bool = False, rngs: nnx.Rngs
    ):
        width, dtype = config.d_model, options.dtype
        self.token_embedding = nnx.Embed(config.vocab_size, width, dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_target_positions, width, dtype=dtype, rngs=rngs)
        count = config.decoder_layers
        self.layers = (
            nnx.List([DecoderLayer(config, options, decode_layout=True, rngs=rngs) for _ in range(count)])
            if decode_layout
            else stack_of(lambda r: DecoderLayer(config, options, rngs=r), count, rngs)
        )
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.config = config
        self.options = options

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        encoder_out_BSD: Float[Array, "B S D"],
        key: Array | None = None,
        *,
        collect_layers: bool = False,
    ) -> ForwardOutput:
        """Run the decoder on whole sequences with a causal mask (teacher forcing).

        Args:
            tokens_BT: Token ids; padding goes to the right, where no real token sees it.
            encoder_out_BSD: Encoder states.
            key: Random key of the dropouts while training.
            collect_layers: Whether to return the outputs of all layers too.

        Raises:
            ValueError: If T exceeds ``max_target_positions``.
        """
        length = tokens_BT.shape[1]
        if length > self.config.max_target_positions:
            raise ValueError(f"expected at most {self.config.max_target_positions} tokens, got {length}")
        first_key, stack_key = split_key(key, 2)
        encoder_out_BSD = copy_to_tp(
            encoder_out_BSD.astype(self.options.dtype), self.options.sharding.tensor_axis
        )
        x_BTD = self._embed(tokens_BT, jnp.arange(length)[None])
        x_BTD = dropout(x_BTD, self.config.dropout, first_key)
        mask = visible_slots(jnp.zeros(1, jnp.int32), length, length)
        x_BTD, layers_LBTD = run_stack(
            self.layers,
            lambda layer, x, k: layer(x, encoder_out_BSD, mask, key=k)[0],
            x_BTD,
            options=self.options,
            key=stack_key,
            collect_layers=collect_layers,
        )
        embedding_VD = self.token_embedding.embedding[...].astype(self.options.dtype)
        return ForwardOutput(self.norm(x_BTD), embedding_VD, layers_LBTD)

    def forward_with_alignment_heads(
        self,
        tokens_BT: Int[Array, "B T"],
        encoder_out_BSD: Float[Array, "B S D"],
        heads: Sequence[tuple[int, int]],
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B A T H"], Float[Array, "A D H"]]:
        """Run the decoder on whole sequences, and return the cross-attention queries of some heads.

        The scores of a head are ``query · (state · key projection)``; those of all other heads are not kept.

        Args:
            tokens_BT: Token ids; padding goes to the right.
            encoder_out_BSD: Encoder states.
            heads: A pairs of layer and head, ordered by layer.

        Returns:
            Hidden states after the final norm, and scaled queries and key projections of the heads in order.
        """
        length = tokens_BT.shape[1]
        encoder_out_BSD = encoder_out_BSD.astype(self.options.dtype)
        x_BTD = self._embed(tokens_BT, jnp.arange(length)[None])
        mask = visible_slots(jnp.zeros(1, jnp.int32), length, length)
        asked = []
        for index, layer in enumerate(self.unroll_layers()):
            x_BTD, _ = layer.attend_to_tokens(x_BTD, mask)
            if chosen := [head for number, head in heads if number == index]:
                asked.append(layer.alignment_qk(x_BTD, chosen))
            x_BTD = layer.attend_to_states(x_BTD, encoder_out_BSD)
        queries, keys = zip(*asked, strict=True)
        return self.norm(x_BTD), jnp.concatenate(queries, axis=1), jnp.concatenate(keys)

    def logits(self, hidden_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Return float32 logits: the products of hidden states and the tied token embedding."""
        embedding_VD = self.token_embedding.embedding[...].astype(self.options.dtype)
        logits_BTV = project_onto_tokens(hidden_BTD, embedding_VD)
        axis = self.options.sharding.vocabulary_axis
        return logits_BTV if axis is None else jax.lax.all_gather(logits_BTV, axis, axis=2, tiled=True)

    def output_embedding(self, tokens_N: Int[Array, " N"]) -> Float[Array, "N D"]:
        """Return the rows of the output projection for some tokens, in the compute dtype."""
        embedding_VD = self.token_embedding.embedding[...].astype(self.options.dtype)
        return embedding_lookup(embedding_VD, tokens_N[None], self.options.sharding.vocabulary_axis)[0]

    def init_cache(self, encoder_out_BSD: Float[Array, "B S D"], slots: int) -> DecoderCache:
        """Return an empty cache with room for ``slots`` tokens, for decoding from these encoder states."""
        layers: Any = self.layers
        of_layer = layers[0] if isinstance(layers, nnx.List) else layers
        key = of_layer.self_attention.key
        sizes = dict(zip(key.axes, key.kernel.shape[-3:], strict=True))
        heads, features = sizes["n"], sizes["h"]  # on this device
        empty = jnp.zeros((encoder_out_BSD.shape[0], heads, slots, features), self.options.dtype)
        blank = (empty,) * self.config.decoder_layers
        return DecoderCache(blank, blank, encoder_out_BSD.astype(self.options.dtype))

    def unroll_layers(self) -> list[DecoderLayer]:
        """Return the layers as a list, sliced out of their stack if they are stacked.

        A decoding loop calls this outside its body. Inside, every step would copy every weight of a stack,
        and devices that store pieces would wait for each other.
        """
        return unstack(self.layers, self.options.sharding)

    def decode(
        self,
        layers: list[DecoderLayer],
        tokens_BT: Int[Array, "B T"],
        cache: DecoderCache,
        offset: Int[Array, " B"] | Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], DecoderCache]:
        """Run the decoder on T new tokens of every row, each row from its own offset on.

        This is used for prefill (many tokens at offset 0), decoding (one token), and the verification of
        drafts (several tokens at any offset).

        Args:
            layers: Layers from :meth:`unroll_layers`.
            tokens_BT: New tokens; the first one of row b has position ``offset[b]``.
            cache: Cache from :meth:`init_cache` or from an earlier call.
            offset: Number of tokens that the cache holds of each row, or of all rows; offset + T ≤ slots.
                Tokens beyond the last position are given the last position; they are excess tokens of a
                draft, which the caller drops.

        Returns:
            Hidden states of the new tokens after the final norm, and the grown cache.
        """
        length, offset_B = tokens_BT.shape[1], jnp.atleast_1d(offset)
        position_BT = offset_B[:, None] + jnp.arange(length)
        mask_B1TC = visible_slots(offset_B, length, cache.slots)
        return self._forward_with_cache(cache, offset, layers, self._embed(tokens_BT, position_BT), mask_B1TC)

    def decode_beams(
        self,
        layers: list[DecoderLayer],
        tokens_BK: Int[Array, "B K"],
        cache: DecoderCache,
        slot: Int[Array, ""],
        *,
        position_B: Int[Array, " B"],
        visible_BKC: Bool[Array, "B K C"],
    ) -> tuple[Float[Array, "B K D"], DecoderCache]:
        """Run the decoder on one new token of each of K sequences that share the prompt and states of a row.

        All beams or samples of a row share the cache of the row: each sequence is a path through its slots,
        and sees only the slots of its path. So nothing is copied where sequences diverge, and the encoder
        states of a row are read once for all its sequences.

        Args:
            layers: Layers from :meth:`unroll_layers`.
            tokens_BK: One token for each sequence.
            cache: Cache from :meth:`init_cache` or from an earlier call.
            slot: Slot to which the token of the first sequence is written in every row; those of the other
                sequences follow.
            position_B: Position of the new tokens in each row.
            visible_BKC: Which slots each sequence sees, including that of its new token.

        Returns:
            Hidden states of the new tokens after the final norm, and the grown cache.
        """
        x_BKD = self._embed(tokens_BK, position_B[:, None])
        return self._forward_with_cache(cache, slot, layers, x_BKD, visible_BKC[:, None])

    def _forward_with_cache(
        self,
        cache: DecoderCache,
        offset: Int[Array, " B"] | Int[Array, ""],
        layers: list[DecoderLayer],
        x_BTD: Float[Array, "B T D"],
        mask_B1TC: Bool[Array, "#B 1 T C"],
    ) -> tuple[Float[Array, "B T D"], DecoderCache]:
        """Run embedded tokens through the layers, and write to the cache from an offset on."""
        grown = []
        for index, layer in enumerate(layers):
            past = cache.self_keys[index], cache.self_values[index]
            x_BTD, own = layer(x_BTD, cache.encoder_out_BSD, mask_B1TC, cached=(past, offset))
            grown.append(own)
        keys, values = tuple(k for k, _ in grown), tuple(v for _, v in grown)
        return self.norm(x_BTD), DecoderCache(keys, values, cache.encoder_out_BSD)

    def _embed(self, tokens_BT: Int[Array, "B T"], position_BT: Int[Array, "#B #T"]) -> Float[Array, "B T D"]:
        axis = self.options.sharding.vocabulary_axis
        embedding_VD = self.token_embedding.embedding[...].astype(self.options.dtype)
        position_BT = jnp.minimum(position_BT, self.config.max_target_positions - 1)
        return embedding_lookup(embedding_VD, tokens_BT, axis) + self.position_embedding(position_BT)
