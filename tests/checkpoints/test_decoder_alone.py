"""A decoder that was saved without its encoder can draft for a whole checkpoint, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten


@pytest.fixture(scope="module")
def folder(small_checkpoint: Checkpoint, tmp_path_factory) -> Path:
    from transformers import WhisperForCausalLM

    whole, alone = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("alone")
    checkpoint = small_checkpoint
    export_checkpoint(checkpoint.params, checkpoint.config, whole, files=checkpoint.files, dtype="float32")
    WhisperForCausalLM.from_pretrained(whole).save_pretrained(alone)
    return alone


@pytest.mark.filterwarnings("ignore")  # transformers', about weights of the encoder that it leaves out
def test_the_decoder_that_transformers_saves_alone_is_read(folder: Path, small_checkpoint: Checkpoint):
    found = load_checkpoint(folder, without_encoder=True)
    assert set(found.params) == {"decoder"}
    wanted = flatten(small_checkpoint.params["decoder"])
    for path, leaf in flatten(found.params["decoder"]).items():
        np.testing.assert_array_equal(leaf, wanted[path])
    assert load_checkpoint(folder, without_encoder=True, config_only=True).params == {}


@pytest.mark.parametrize("config_only", [True, False])
def test_it_is_refused_as_a_checkpoint(folder: Path, config_only: bool):
    with pytest.raises(InputError, match="holds a decoder without an encoder: it can be an assistant_model"):
        load_checkpoint(folder, config_only=config_only)
