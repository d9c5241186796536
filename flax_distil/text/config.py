"""Settings of what is spoken, and what is written of it."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Language and task.

    Attributes:
        language: Language of the speech, by name or code.
        task: transcribe, or translate into English.
    """

    language: str | None = None
    task: str | None = None
