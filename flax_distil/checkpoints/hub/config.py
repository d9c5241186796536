"""Configuration of uploads to the Hugging Face Hub."""

import dataclasses

from flax_distil.core.secrets import remember_secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Upload.

    Attributes:
        push_to_hub: Upload the result at the end. The repository is checked, and created if needed, at the
            start.
        hub_private_repo: Create the repository as a private one.
        hub_token: Access token for uploads; by default that of hf auth login, or HF_TOKEN.
    """

    push_to_hub: bool = False
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
