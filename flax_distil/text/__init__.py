"""Tokens and text: special tokens, prompts, timestamps, languages, normalisers."""

from flax_distil.text.generation_settings import TASKS, GenerationSettings, default_alignment_heads
from flax_distil.text.languages import (
    DETECT_LANGUAGE,
    LANGUAGES,
    LANGUAGES_WITHOUT_SPACES,
    language_code,
    resolve_language,
)
from flax_distil.text.normalisers import (
    NORMALIZERS,
    Normaliser,
    normaliser,
    orthographic,
    text_normaliser,
)
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import (
    LAST_TIMESTAMP_SECONDS,
    TIMESTAMP_STEP_SECONDS,
    Segment,
    round_timestamps,
    split_segments,
    strip_timestamp_text,
    strip_timestamps,
    timestamp_seconds,
    timestamp_token,
)
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.text.words import TokenWord, split_words

__all__ = [
    "DETECT_LANGUAGE",
    "LANGUAGES",
    "LANGUAGES_WITHOUT_SPACES",
    "LAST_TIMESTAMP_SECONDS",
    "MAX_PREVIOUS_TOKENS",
    "NORMALIZERS",
    "TASKS",
    "TIMESTAMP_STEP_SECONDS",
    "GenerationSettings",
    "Normaliser",
    "Segment",
    "SpecialTokens",
    "TokenWord",
    "WhisperTokenizer",
    "default_alignment_heads",
    "language_code",
    "normaliser",
    "orthographic",
    "resolve_language",
    "round_timestamps",
    "split_segments",
    "split_words",
    "strip_timestamp_text",
    "strip_timestamps",
    "text_normaliser",
    "timestamp_seconds",
    "timestamp_token",
]
