"""The verification of an export: our part before anything is written, the programs' part behind it."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.checkpoints.load_params import load_params
from flax_distil.checkpoints.tokenizer import has_tokenizer
from flax_distil.core.errors import InputError
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.compare import Comparison, compare, comparison_table
from flax_distil.exporting.verification.reference import Expected, expect, read_recordings
from flax_distil.storage.downloads import local_copy
from flax_distil.storage.paths import AnyPath
from flax_distil.text.normalizers import Normalizer, get_model_normalizer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """The recordings of a verification, and what we make of them.

    Attributes:
        expected: Our texts and logits.
        normalize: Normalizer of word error rates.
    """

    expected: list[Expected]
    normalize: Normalizer

    @classmethod
    def prepare(cls, source: ExportSource, names: Sequence[str]) -> "Verification":
        """Read and transcribe recordings, before anything is written.

        Args:
            source: The checkpoint, whose weights are all read.
            names: Files, folders and patterns.

        Raises:
            InputError: If a recording cannot be read, or the checkpoint has no tokenizer.
        """
        if not has_tokenizer(source.files):
            raise InputError(
                f"verify transcribes, and {source.files.origin} holds no tokenizer: leave it out, or copy "
                "the files of the tokenizer there"
            )
        recordings = read_recordings(names, source.config.window_samples)
        log.info("transcribing %d recordings in float32", len(recordings))
        params = load_params(_SourceReader(source), source.config, dtype=jnp.float32)
        expected = expect(Checkpoint(config=source.config, params=params, files=source.files), recordings)
        languages = {one.clip.language for one in expected}
        language = languages.pop() if len(languages) == 1 else None
        return cls(
            expected=expected,
            normalize=get_model_normalizer(language, None, is_multilingual=language is not None),
        )

    def run(self, choices: Sequence[Choice], folders: Mapping[str, AnyPath]) -> tuple[Comparison, ...]:
        """Run every export in its program, and show the comparisons.

        Args:
            choices: The formats.
            folders: Folder of each format by its name.
        """
        comparisons = []
        for choice in choices:
            with local_copy(folders[choice.name], subfolders=("onnx",)) as folder:
                comparisons.append(compare(choice, folder, self.expected, self.normalize))
        log.info("%s", comparison_table(comparisons))
        return tuple(comparisons)


class _SourceReader(CheckpointReader):
    """The source of an export as a reader of tensors."""

    def __init__(self, source: ExportSource):
        self.origin, self._source = source.files.origin, source

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {name: TensorSpec(shape=shape, dtype="float32") for name, shape in self._source.shapes.items()}

    def read(self, name: str) -> np.ndarray:
        return self._source.read(name)
