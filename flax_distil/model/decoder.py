"""The Whisper decoder: it runs whole sequences in training, and new tokens with a cache in decoding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.model.attention import dot_product_attention, dropout
from flax_distil.model.cache import DecoderCache, visible_slots, write_slots
from flax_distil.model.collectives import copy_to_tp, embedding_lookup, fold_in_axis_index
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.layers import feed_forward, layer_norm, run_stack, split_key, stack_of, unstack
from flax_distil.model.projections import AttentionProjections, Linear, project_onto_tokens

KeyValue = tuple[Array, Array]


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


class DecoderLayer(nnx.Module):
    """A pre-norm layer of causal self-attention, cross-attention to the encoder states, and feed-forward."""

    def __init__(
        self, config: WhisperConfig, options: ComputeOptions, *, decode_layout: bool = False, rngs: nnx.Rngs
    ):
        width, heads, features = config.d_model, config.decoder_attention_heads, config.decoder_ffn_dim
        dtype, axis = options.dtype, options.sharding.tensor_axis
        common: dict[str, Any] = {"decode_layout": decode_layout, "dtype": dtype, "rngs": rngs}
        self.self_attention = AttentionProjections("self_attention", width, heads, axis=axis, **common)
        self.self_attention_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.cross_attention = AttentionProjections("cross_attention", width, heads, axis=axis, **common)
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

        return jax.lax.platform_dependent(encoder_out_BSD, cpu=of_samples, default=of_batch)

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
        config = self.config
        y_BTD = copy_to_tp(self.cross_attention_norm(x_BTD), self.axis)
        mixed = self.cross_attend(y_BTD, encoder_out_BSD, keys[0])
        x_BTD = x_BTD + dropout(self.cross_attention.out(mixed), config.dropout, keys[1])
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
