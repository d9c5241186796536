"""Throughput from sums of audio, tokens and seconds. The caller measures the time."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Work and the time that it took; two can be added.

    Attributes:
        audio_seconds: Speech processed, padding left out.
        compute_seconds: Wall-clock time of the work, compilation left out.
        compile_seconds: Time spent compiling, reported apart.
        tokens: Ids generated.
        samples: Recordings processed.
    """

    audio_seconds: float = 0.0
    compute_seconds: float = 0.0
    compile_seconds: float = 0.0
    tokens: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        negative = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) < 0}
        if negative:
            raise ValueError(f"expected sums of at least 0, got {negative}")

    def __add__(self, other: "Throughput") -> "Throughput":
        """Return the sums of both."""
        return Throughput(
            **{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        )

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of computing; NaN before anything was measured."""
        return self._per_second(self.audio_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Ids generated per second of computing."""
        return self._per_second(self.tokens)

    @property
    def samples_per_second(self) -> float:
        """Recordings per second of computing."""
        return self._per_second(self.samples)

    def _per_second(self, amount: float | int) -> float:
        return amount / self.compute_seconds if self.compute_seconds else math.nan
