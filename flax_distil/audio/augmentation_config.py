"""Settings of the augmentation of training audio."""

import dataclasses
import math

from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Noise and augmentation.

    Everything is off by default.

    Attributes:
        mask_time_prob: Share of a recording's frames that the time masks of SpecAugment cover; less where
            masks overlap.
        mask_time_length: Number of frames of 10 ms in one time mask.
        mask_feature_prob: Share of the mel bins that the frequency masks of SpecAugment cover.
        mask_feature_length: Number of mel bins in one frequency mask.
        white_noise_prob: Probability that white noise is added to a sample.
        babble_noise_prob: Probability that babble, made of other samples of the batch, is added to a sample.
        recorded_noise_prob: Probability that a recording of noise_dataset_name is added to a sample.
        noise_snr: Lowest and highest signal-to-noise ratio of added noise in dB; by default 5 and 30.
        speed_factors: Speeds, of which one is drawn for each sample, such as 0.9 1.0 1.1; pitch and
            timestamps change with it. By default every sample keeps its own speed.

    Raises:
        InputError: If a value is out of range.
    """

    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    white_noise_prob: float = 0.0
    babble_noise_prob: float = 0.0
    recorded_noise_prob: float = 0.0
    noise_snr: tuple[float, ...] | None = None
    speed_factors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("mask_time", "mask_feature", "white_noise", "babble_noise", "recorded_noise"):
            probability = getattr(self, f"{name}_prob")
            if not 0.0 <= probability <= 1.0:
                raise InputError(f"{name}_prob must lie between 0 and 1, got {probability:g}")
        for name in ("mask_time_length", "mask_feature_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.noise_snr is not None and len(self.noise_snr) != 2:
            raise InputError(
                f"noise_snr has {len(self.noise_snr)} values: expected two, the least and the greatest in dB"
            )
        low, high = self.snr_range
        if not -math.inf < low <= high < math.inf:
            raise InputError(
                f"noise_snr must be two numbers of dB, the smaller first, got {low:g} and {high:g}"
            )
        for factor in self.speeds or (0.0,):
            if not 0.5 <= factor <= 2.0:
                raise InputError(
                    "speed_factors must be one or more numbers between 0.5 and 2, got "
                    f"{', '.join(f'{value:g}' for value in self.speeds) or 'none'}"
                )

    @property
    def snr_range(self) -> tuple[float, float]:
        """The least and the greatest signal-to-noise ratio of added noise in dB."""
        low, high = self.noise_snr or (5.0, 30.0)
        return low, high

    @property
    def speeds(self) -> tuple[float, ...]:
        """The speeds of which one is drawn for each recording."""
        return (1.0,) if self.speed_factors is None else self.speed_factors

    @property
    def on_device(self) -> bool:
        """Whether :func:`augment_samples` or :func:`spec_augment` change anything, and need seeds."""
        return any(
            (self.mask_time_prob, self.mask_feature_prob, self.white_noise_prob, self.babble_noise_prob)
        )
