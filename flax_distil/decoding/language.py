"""Which language is spoken, as a multilingual Whisper sees it."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float
from flax_distil.model.decoder import Decoder
from flax_distil.text.special_tokens import SpecialTokens


def language_probabilities(
    decoder: Decoder, encoder_out_BSD: Float[Array, "B S D"], special: SpecialTokens
) -> Float[Array, "B G"]:
    """Return the probability of every language, in the order of ``special.languages``.

    The token after ``<|startoftranscript|>``, among the language tokens only.

    Raises:
        ValueError: If the vocabulary is English-only.
    """
    if not special.is_multilingual:
        raise ValueError("an English-only vocabulary has no language tokens")
    start_B1 = jnp.full((encoder_out_BSD.shape[0], 1), special.sot, jnp.int32)
    cache = decoder.init_cache(encoder_out_BSD, slots=1)
    hidden_B1D, _ = decoder.decode(decoder.unroll_layers(), start_B1, cache, jnp.zeros((), jnp.int32))
    languages = jnp.asarray(list(special.languages.values()))
    return jax.nn.softmax(decoder.logits(hidden_B1D)[:, 0, languages])
