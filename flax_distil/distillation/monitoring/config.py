"""Settings of what a run reports of itself, and where to."""

import dataclasses

from flax_distil.core.errors import InputError

REPORTERS = ("tensorboard", "wandb")
"""Services that metrics are reported to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportingConfig:
    """Reports.

    Attributes:
        report_to: Where metrics, sample predictions and histograms are reported, beside the files in
            output_dir: tensorboard, wandb (Weights & Biases), both joined by a comma, all, or none.
        run_name: Name of the run at Weights & Biases; by default the last part of output_dir. WANDB_PROJECT
            names the project, and WANDB_MODE=offline keeps everything on this machine.
        log_histograms: Report a histogram of each trained matrix of weights, of every layer, at evaluations.

    Raises:
        InputError: If report_to names another service.
    """

    report_to: str = "tensorboard"
    run_name: str | None = None
    log_histograms: bool = True

    def __post_init__(self) -> None:
        _ = self.services

    @property
    def services(self) -> tuple[str, ...]:
        """The services of ``report_to``, in the order of :data:`REPORTERS`."""
        if self.report_to in ("none", "all"):
            return REPORTERS if self.report_to == "all" else ()
        named = [name.strip() for name in self.report_to.split(",")]
        if unknown := [name for name in named if name not in REPORTERS]:
            raise InputError(
                f"report_to {self.report_to!r} names {unknown[0]!r}: expected {', '.join(REPORTERS)}, both "
                "joined by a comma, all or none"
            )
        return tuple(name for name in REPORTERS if name in named)

    @property
    def has_histograms(self) -> bool:
        """Whether a service takes histograms."""
        return self.log_histograms and bool(self.services)
