"""By whose rules an evaluation is made."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path

WHISPER, OPEN_ASR_LEADERBOARD = PROTOCOLS = ("whisper", "open_asr_leaderboard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """Protocol.

    Attributes:
        protocol: whisper measures any data sets, under Whisper's normalizer. open_asr_leaderboard measures
            sets of the Open ASR Leaderboard as it does; dataset_name then names short_form, long_form,
            multilingual or single sets.
        leaderboard_data_dir: Folder with copies of the leaderboard's data sets, as hf download makes them; by
            default they come from the Hub.
        scorer: Folder of a copy of huggingface/open_asr_leaderboard. Its scorer, which is code
            that is run, scores the manifests as well.

    Raises:
        InputError: If a value is unknown, or given without the protocol that it is for.
    """

    protocol: str = WHISPER
    leaderboard_data_dir: str | None = None
    scorer: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol {self.protocol!r} is unknown: expected {' or '.join(PROTOCOLS)}")
        for name in ("leaderboard_data_dir", "scorer"):
            if getattr(self, name) is not None and not self.is_leaderboard:
                raise InputError(f"{name} is for protocol {OPEN_ASR_LEADERBOARD}: set that, or leave it out")
        scorer = self.scorer
        if scorer is not None and not (user_path(scorer) / "normalizer" / "eval_utils.py").is_file():
            raise InputError(
                f"scorer {scorer!r} has no normalizer/eval_utils.py: name a copy of "
                "https://github.com/huggingface/open_asr_leaderboard"
            )

    @property
    def is_leaderboard(self) -> bool:
        """Whether the rules are those of the Open ASR Leaderboard."""
        return self.protocol == OPEN_ASR_LEADERBOARD
