"""What a checkpoint tells about its run besides the state: settings, their hash, versions, the student."""

import dataclasses
import hashlib
import json
import platform
from typing import Any

from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.training.trained_student import frozen_digest
from flax_distil.core.arrays import Params
from flax_distil.core.environment import package_versions
from flax_distil.core.nested import all_leaves
from flax_distil.core.secrets import without_secrets
from flax_distil.distillation.config import DistillConfig


def checkpoint_facts(config: DistillConfig, student: Checkpoint, kept: Params) -> dict[str, Any]:
    """Return the facts in a form for JSON; none of them is secret.

    Args:
        config: Settings of the run with everything decided.
        student: Configuration of the student.
        kept: Weights that are not trained, in the type of the export.

    Returns:
        ``config`` and ``config_hash`` (SHA-256), ``versions`` of packages, and ``student``, for the command
        ``export``: where it is read from, which layers of that it has, its architecture, a digest of the
        weights that are not trained, and whether it may end a transcript before its first word.
    """
    settings = json.loads(json.dumps(_without_secrets(dataclasses.asdict(config)), default=str))
    text = json.dumps(settings, sort_keys=True)
    is_made = config.model.model_name_or_path is None
    source = config.teacher.source(config.model) if is_made else config.model.source
    return {
        "config": settings,
        "config_hash": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "student": {
            "source": _described(source),
            "layers": config.student.layers if is_made else None,
            "config": student.config.to_huggingface(),
            "export_dtype": config.weights.export_dtype,
            "frozen": frozen_digest(kept),
            "allows_empty_text": config.data.non_speech.replaces_samples,
        },
    }


def _described(source: ModelSource) -> dict[str, Any]:
    return {"name": source.name, "revision": source.revision, "subfolder": source.subfolder}


_SECRET = {leaf.path[-1] for leaf in all_leaves(DistillConfig) if leaf.secret}
"""Names of settings that are never stored."""


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(part) for name, part in value.items() if name not in _SECRET}
    return without_secrets(value) if isinstance(value, str) else value
