"""Take access tokens, passwords and signatures out of texts before they are shown or written."""

import os
import re

HIDDEN = "***"
"""Stands where a secret was."""

_VARIABLES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY",
)  # fmt: skip
"""Environment variables whose values are secrets."""

_SHORTEST = 8
"""Shorter values are no secrets, and would be found in ordinary words."""

_PATTERNS = (
    (re.compile(r"(?<=://)[^\s/?#@'\"]+@"), f"{HIDDEN}@"),  # user:password@host
    (re.compile(r"(\w://[^\s?#'\"<>]+)\?[^\s#'\"<>]+"), rf"\1?{HIDDEN}"),  # signatures stand in queries
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?)(?:[a-z]+\s+)?[^\s'\",]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), HIDDEN),
)

_remembered: set[str] = set()


def remember_secret(value: str | None) -> None:
    """Hide a value in all texts from now on, such as a token that was given as a flag."""
    if value is not None and len(value) >= _SHORTEST:
        _remembered.add(value)


def without_secrets(text: str) -> str:
    """Return a text with ``***`` in place of its secrets.

    Secrets are the values that were remembered, those of well-known environment variables, Hub tokens,
    ``Authorization`` headers, and in addresses the query and what stands before ``@``.
    """
    for value in {*_remembered, *(os.environ.get(name, "") for name in _VARIABLES)}:
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    if "://" in text or "hf_" in text or "earer" in text or "uthorization" in text:
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    return text
