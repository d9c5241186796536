"""Configuration of uploads to the Hugging Face Hub."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.core.secrets import remember_secret

HUB_STRATEGIES = ("end", "every_save", "all_checkpoints")
"""Values of ``hub_strategy``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Upload.

    Attributes:
        push_to_hub: Upload the result at the end. The repository is checked, and created if needed, at the
            start.
        hub_revision: Branch of the repository to upload to, which is created if needed; by default its main
            branch.
        hub_private_repo: Create the repository as a private one.
        hub_token: Access token for uploads; by default that of hf auth login, or HF_TOKEN.
    """

    push_to_hub: bool = False
    hub_revision: str | None = None
    hub_private_repo: bool = False
    hub_token: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        remember_secret(self.hub_token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModelConfig(HubConfig):
    """Upload.

    Attributes:
        hub_model_id: Repository on the Hub, as user/name; by default it has the name of output_dir and
            belongs to the user of the token.
    """

    hub_model_id: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubTrainingConfig(HubModelConfig):
    """Upload.

    Attributes:
        hub_strategy: When the student is uploaded: end (once, after training), every_save (also at each
            checkpoint, in the background; an upload that is overtaken by the next is left out) or
            all_checkpoints (as every_save, with the checkpoints themselves, below checkpoints/).

    Raises:
        InputError: If the strategy is unknown.
    """

    hub_strategy: str = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hub_strategy not in HUB_STRATEGIES:
            raise InputError(
                f"hub_strategy {self.hub_strategy!r} is unknown: expected {', '.join(HUB_STRATEGIES)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCardConfig:
    """Model card.

    Attributes:
        license: License of the model for its card, as the Hub spells it, such as mit or apache-2.0; by
            default the card says that it is not stated.
        eval_results: File results.json of an evaluation by flax-distil eval, whose figures the card shows.
    """

    license: str | None = None
    eval_results: str | None = None
