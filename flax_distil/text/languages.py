"""The hundred languages of Whisper, with their codes and names.

Whisper has a token such as ``<|en|>`` for each language; people write "en", "English", "en-US" or
"castilian". This file is the only place that converts what people write into the code inside the token.
"""

import difflib
import re
from collections.abc import Collection

from flax_distil.core.errors import InputError

LANGUAGES: dict[str, str] = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}
"""Code to English name, in the order of the tokens. ``yue`` came with large-v3."""

_ALIASES = {
    "bokmal": "no",
    "burmese": "my",
    "castilian": "es",
    "cmn": "zh",
    "fil": "tl",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "iw": "he",  # the first Whisper vocabularies spell Hebrew <|iw|>
    "jv": "jw",  # ISO 639 calls Javanese jv, Whisper's token is <|jw|>
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "nb": "no",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages whose writing does not separate words: scored by characters (arXiv 2212.04356, appendix C)."""

LANGUAGE_CODES: dict[str, str] = (
    {code: code for code in LANGUAGES} | {name: code for code, name in LANGUAGES.items()} | _ALIASES
)
"""Code of every accepted spelling, in lower case."""


DETECT_LANGUAGE = "auto"
"""Value that asks for detection of the language even if the checkpoint has a default language."""

_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*")


def resolve_language(name_or_code: str, own: Collection[str] = ()) -> str:
    """Return Whisper's code of a language that is given by code, English name, alias or locale.

    Case does not matter; a region is dropped (``"pt-BR"`` and ``"pt_br"`` are ``"pt"``)
    and the token itself (``"<|pt|>"``) is understood.

    Args:
        name_or_code: Name or code, such as ``"fr"``, ``"French"``, ``"castilian"`` or ``"en-US"``.
        own: Codes of the languages of a checkpoint's vocabulary, which are accepted as they are written.

    Returns:
        The code, a key of :data:`LANGUAGES` or one of ``own``.

    Raises:
        InputError: If there is no such language; the message lists similar names.
    """
    wanted = _spelling(name_or_code)
    if wanted in own:
        return wanted
    for spelling in (wanted, wanted.replace("_", "-").partition("-")[0]):
        if spelling in LANGUAGE_CODES:
            return LANGUAGE_CODES[spelling]
    close = difflib.get_close_matches(wanted, LANGUAGE_CODES, n=3)
    # A mistyped code of two letters is similar to half of the table, so suggestions would not help.
    if close and len(wanted) > 3:
        suggestions = " or ".join(f"{spelling!r} ({LANGUAGE_CODES[spelling]})" for spelling in close)
        raise InputError(f"unknown language {name_or_code!r}: did you mean {suggestions}?")
    raise InputError(
        f"unknown language {name_or_code!r}: give the code or English name of one of Whisper's "
        f"{len(LANGUAGES)} languages, such as 'en' or 'english'"
    )


def language_code(name_or_code: str) -> str:
    """Return the code of a language where the vocabulary of the checkpoint is not known yet.

    A code that Whisper does not have, such as ``"hak"``, may be a language that was added to a checkpoint, so
    it is returned as it is. ``WhisperTokenizer.prompt`` refuses languages that have no token in the
    vocabulary.

    Raises:
        InputError: If it is neither a language of Whisper nor written like a code.
    """
    try:
        return resolve_language(name_or_code)
    except InputError:
        code = _spelling(name_or_code)
        if _CODE.fullmatch(code):
            return code
        raise


def _spelling(name_or_code: str) -> str:
    return name_or_code.strip().lower().removeprefix("<|").removesuffix("|>")
