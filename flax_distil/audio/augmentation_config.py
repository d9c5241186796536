"""Settings of the augmentation of training audio."""

import dataclasses
import math

from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What is done to the training input; everything is off by default.

    Attributes:
        mask_time_prob: Share of a recording's frames that SpecAugment's time masks cover (less where
            masks overlap).
        mask_time_length: Frames of 10 ms in one time mask.
        mask_feature_prob: Share of the mel bins that SpecAugment's frequency masks cover.
        mask_feature_length: Mel bins in one frequency mask.
        white_noise_prob: How often white noise is added.
        babble_noise_prob: How often babble is added: four other recordings of the device's batch.
        recorded_noise_prob: How often a piece of recorded noise is added.
        noise_snr: Least and greatest signal-to-noise ratio of whatever noise is added, in dB.
        speed_factors: Speeds to draw from, such as 0.9, 1.0 and 1.1; pitch and timestamps change with them.

    Raises:
        InputError: if a value is out of range.
    """

    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    white_noise_prob: float = 0.0
    babble_noise_prob: float = 0.0
    recorded_noise_prob: float = 0.0
    noise_snr: tuple[float, float] = (5.0, 30.0)
    speed_factors: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("mask_time", "mask_feature", "white_noise", "babble_noise", "recorded_noise"):
            probability = getattr(self, f"{name}_prob")
            if not 0.0 <= probability <= 1.0:
                raise InputError(f"{name}_prob must lie between 0 and 1, got {probability:g}")
        for name in ("mask_time_length", "mask_feature_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        low, high = self.noise_snr
        if not -math.inf < low <= high < math.inf:
            raise InputError(
                f"noise_snr must be two numbers of dB, the smaller first, got {low:g} and {high:g}"
            )
        for factor in self.speed_factors or (0.0,):
            if not 0.5 <= factor <= 2.0:
                raise InputError(
                    "speed_factors must be one or more numbers between 0.5 and 2, got "
                    f"{', '.join(f'{value:g}' for value in self.speed_factors) or 'none'}"
                )

    @property
    def on_device(self) -> bool:
        """Whether :func:`augment_samples` or :func:`spec_augment` change anything, and need seeds."""
        return any(
            (self.mask_time_prob, self.mask_feature_prob, self.white_noise_prob, self.babble_noise_prob)
        )
