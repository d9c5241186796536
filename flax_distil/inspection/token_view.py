"""What every token of a label is for, and whether it is learned: for people to look at."""

from dataclasses import dataclass

import numpy as np

from flax_distil.core.arrays import Bool, Int
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import timestamp_seconds
from flax_distil.text.tokenizer import WhisperTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenView:
    """One token of a label.

    Attributes:
        token: Its id.
        text: What it stands for; U+FFFD where it is a part of a character. Where another token is learned in
            its place, as ``<|nospeech|>`` where nobody speaks, an arrow and that token follow.
        role: Prompt (all before the next), sot, language, task, timestamp, text or eot.
        learned: Whether it counts in the loss.
        seconds: Time of a timestamp; None for other tokens.
    """

    token: int
    text: str
    role: str
    learned: bool
    seconds: float | None = None


def view_tokens(
    inputs_T: Int[np.ndarray, " T"],
    labels_T: Int[np.ndarray, " T"],
    loss_mask_T: Bool[np.ndarray, " T"],
    tokenizer: WhisperTokenizer,
) -> list[TokenView]:
    """Return the sequence of one row of a training batch, without its padding.

    Args:
        inputs_T: What the decoder reads.
        labels_T: What it should say after each of them.
        loss_mask_T: Which of those count.
        tokenizer: The model's.
    """
    length = int(np.flatnonzero(loss_mask_T)[-1]) + 1
    tokens = [*inputs_T[:length].tolist(), int(labels_T[length - 1])]
    targets = [tokens[0], *labels_T[:length].tolist()]
    learned = [False, *loss_mask_T[:length].tolist()]
    special = tokenizer.special
    before = tokens.index(special.sot)

    def text(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False, with_timestamps=True)

    return [
        TokenView(
            token=token,
            text=text(token) if token == target or not counts else f"{text(token)}→{text(target)}",
            role="prompt" if position < before else _role(token, special),
            learned=counts,
            seconds=timestamp_seconds(token, special) if special.is_timestamp(token) else None,
        )
        for position, (token, target, counts) in enumerate(zip(tokens, targets, learned, strict=True))
    ]


def _role(token: int, special: SpecialTokens) -> str:
    if token == special.no_timestamps or special.is_timestamp(token):
        return "timestamp"
    if token in special.languages.values():
        return "language"
    if token in (special.transcribe, special.translate):
        return "task"
    return {special.sot: "sot", special.eot: "eot"}.get(token, "text")
