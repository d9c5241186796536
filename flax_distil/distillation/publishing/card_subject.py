"""What a model card is about: a model, the run that made it if there was one, and how it was evaluated."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax_distil.checkpoints.hub.cards import hub_id, iso_language, short_name
from flax_distil.distillation.publishing.evaluation_table import EvaluatedSet
from flax_distil.distillation.publishing.run_summary import RunSummary
from flax_distil.distillation.publishing.usage import RepositoryFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardSubject:
    """Everything that a model card tells.

    Attributes:
        repository: Repository as ``user/name``, or the name of the folder of a model that is not on the Hub.
        model: Layers, width and parameters of the model, as ``describe_model`` returns them.
        is_multilingual: Whether the model knows more than English.
        formats: Formats that the repository holds, by name.
        base: Model that this one was converted from, as the user named it; None for a student of a run.
        run: The run that made it; None if there was none, or nothing is known of it.
        evaluated: Word error rates, those of the model of the card first.
        license: License of the model; None if it is not stated.
    """

    repository: str
    model: Mapping[str, Any]
    is_multilingual: bool
    formats: Mapping[str, RepositoryFormat]
    base: str | None = None
    run: RunSummary | None = None
    evaluated: Sequence[EvaluatedSet] = ()
    license: str | None = None

    @property
    def title(self) -> str:
        """Name of the model."""
        return self.repository.rpartition("/")[2]

    @property
    def teacher(self) -> Mapping[str, Any]:
        """Name, id and size of the teacher; {} if there was none."""
        return {} if self.run is None else self.run.models.get("teacher", {})

    @property
    def starting_model(self) -> Mapping[str, Any]:
        """Name and id of what the model was made from: the model that training began with, or its teacher."""
        if self.run is None:
            return {} if self.base is None else {"name": short_name(self.base), "id": hub_id(self.base)}
        student = self.run.models.get("student", {})
        return student if "id" in student else self.teacher

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that it was trained on; [] if they are not known."""
        if not self.is_multilingual:
            return ["en"]
        named = () if self.run is None else [entry["language"] for entry in self.run.data_sets("training")]
        return list(dict.fromkeys(code for name in named if (code := iso_language(name))))
