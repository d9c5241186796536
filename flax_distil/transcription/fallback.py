"""Whether a window's transcript is to be trusted, silence, or tried again at a higher temperature."""

from flax_distil.metrics import compression_ratio, token_compression_ratio
from flax_distil.text import WhisperTokenizer
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.window_decoder import WindowResult


def is_silence(result: WindowResult, options: TranscriptionOptions) -> bool:
    """Say whether nothing is spoken: likely silent, and the text unlikely.

    Source: RECIPE 6.
    """
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob < options.logprob_threshold


def failed(result: WindowResult, options: TranscriptionOptions, tokenizer: WhisperTokenizer) -> bool:
    """Say whether a transcript loops or is unlikely, and the window no silence.

    Source: RECIPE 6.
    """
    if options.logprob_threshold is not None and is_silence(result, options):
        return False
    if options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold:
        return True
    limit = options.compression_ratio_threshold
    vocab_size = tokenizer.special.vocab_size
    if limit is not None and token_compression_ratio(result.tokens, vocab_size=vocab_size) > limit:
        return True
    limit = options.text_compression_ratio_threshold
    return limit is not None and compression_ratio(tokenizer.decode(result.tokens).strip()) > limit
