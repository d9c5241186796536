"""One function for every search."""

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.beam import beam_search
from flax_distil.decoding.greedy import sample
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import DecodeLoop
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.result import GenerateOutput
from flax_distil.model.decoder import Decoder


def search(
    decoder: Decoder,
    encoder_out_BSD: Float[Array, "B S D"],
    prompt_BP: Int[Array, "B P"],
    prompt_length_B: Int[Array, " B"],
    *,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
    limit_B: Int[Array, " B"] | None = None,
    temperature_B: Float[Array, " B"] | None = None,
    seed_B: Int[Array, " B"] | None = None,
    prefix_length_B: Int[Array, " B"] | None = None,
) -> GenerateOutput:
    """Emit tokens of every row until all rows have ended; a row never depends on its neighbours.

    Args:
        decoder: bound to its parameters.
        encoder_out_BSD: encoder states.
        prompt_BP: decoder prompts, padded on the right; each holds one
            ``<|startoftranscript|>``.
        prompt_length_B: tokens of each prompt; rows may differ.
        processors: static.
        options: static.
        max_new_tokens: static; a row ends earlier where its prompt leaves less room in
            ``max_target_positions``.
        limit_B: smaller limits of single rows, known only at run time; a row of limit 0 is idle.
        temperature_B: draw from the distribution at this temperature; rows at 0 take the likeliest token.
            With None all do, or beams are searched if asked for.
        seed_B: what a row's sampling depend on, besides its own tokens; with ``temperature_B``.
        prefix_length_B: how many tokens at the end of each prompt are the forced beginning of its transcript,
            which the processors count as emitted; by default none.

    Raises:
        ValueError: if the padded prompts leave no position for a token.
    """
    is_drawn = temperature_B is not None
    hypotheses = DecodeLoop(
        decoder,
        encoder_out_BSD,
        prompt_BP,
        prompt_length_B,
        processors=processors,
        hypotheses=options.best_of if is_drawn else options.num_beams,
        max_new_tokens=max_new_tokens,
        limit_B=limit_B,
        prefix_length_B=prefix_length_B,
    )
    if options.num_beams > 1 and not is_drawn:
        return beam_search(hypotheses, processors, options, max_new_tokens=max_new_tokens)
    return sample(hypotheses, processors, options, temperature_B=temperature_B, seed_B=seed_B)
