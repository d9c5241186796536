"""Take secrets out of texts that are written to files or logs."""

import re

_PATTERNS = (
    (re.compile(r"([A-Za-z][\w.+-]*://)[^/\s@]*@"), r"\1"),  # name and password before a host
    (re.compile(r"([A-Za-z][\w.+-]*://[^\s?]*)\?\S*?(?=\+[A-Za-z][\w.-]*://|\s|$)"), r"\1"),  # a signature
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_…"),
)


def redacted(text: str) -> str:
    """Return a text without passwords and queries of addresses, and without tokens of the Hugging Face Hub.

    Addresses may be joined by +. Queries are left out as a whole, because any part may be a signature.
    """
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
