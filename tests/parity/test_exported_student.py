"""A student made and exported here is, to transformers, the same model."""

import jax.numpy as jnp
import pytest

from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.student import init_student
from tests.parity.reference import Pair, our_tokens, their_tokens

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float16"])
def test_transformers_emits_the_tokens_of_the_student_we_exported(tiny_en, held_out, tmp_path, dtype):
    student = init_student(tiny_en.ours, decoder_layers=2)
    folder = export_checkpoint(
        student.params, student.config, tmp_path / "student", files=student.files, dtype=jnp.dtype(dtype)
    )
    # An untrained student rambles on to the last position: a few recordings are hundreds of tokens.
    recordings = held_out.of_all_lengths(4)
    exported = Pair.open(folder)
    assert exported.theirs.config.decoder_layers == 2
    ours = our_tokens(exported, recordings, max_new_tokens=48)
    assert ours == their_tokens(exported, recordings, max_new_tokens=48)
    assert sum(map(len, ours[False])) > 20
