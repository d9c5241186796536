"""Settings of where models are read from on the Hugging Face Hub."""

import dataclasses
from typing import Any

from flax_distil.checkpoints.hub.model_source import ModelSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSourceConfig:
    """Where models are read from.

    Attributes:
        model_revision: Branch, tag or commit of the model on the Hub; by default its main branch.
        subfolder: Folder within the model's that holds the checkpoint.
        cache_dir: Where models are downloaded to; by default the cache of huggingface_hub.
        token: Access token for models on the Hub; by default that of hf auth login, or HF_TOKEN.
    """

    model_revision: str | None = None
    subfolder: str | None = None
    cache_dir: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)

    def model_source(self, name: str) -> ModelSource:
        """Return where the model of the job is."""
        return ModelSource(
            name=name,
            revision=self.model_revision,
            subfolder=self.subfolder,
            cache_dir=self.cache_dir,
            token=self.token,
        )

    def assistant_source(self, name: str) -> ModelSource:
        """Return where a model beside it is, which has no revision or subfolder of its own."""
        return ModelSource(name=name, cache_dir=self.cache_dir, token=self.token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSourceConfig(ModelSourceConfig):
    """Where a model and its teacher are read from.

    Attributes:
        teacher_model_revision: Branch, tag or commit of the teacher on the Hub; by default its main branch.
        teacher_subfolder: Folder within the teacher's that holds the checkpoint.
    """

    teacher_model_revision: str | None = None
    teacher_subfolder: str | None = None

    def teacher_source(self, name: str) -> ModelSource:
        """Return where the teacher is."""
        return dataclasses.replace(
            self.assistant_source(name),
            revision=self.teacher_model_revision,
            subfolder=self.teacher_subfolder,
        )


def shown_settings(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration that may be shown and kept: all but access tokens."""
    secret = {field.name for field in dataclasses.fields(config) if not field.repr}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in secret}
