"""No format needs the memory of the model: tensors go through one at a time."""

import pytest

from benchmarks.exports import measure
from flax_distil.exporting.format_table import FORMATS

TOKEN_EMBEDDING_BYTES = 51865 * 512 * 2
"""Size of base's largest tensor in the float16 of its file, a third of the file."""

SMALL_FILES_BYTES = 20 * 10**6
"""Memory for the tokenizer and for pieces of tensors, whatever the model's size."""


@pytest.mark.slow  # a process for each format
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_written_with_the_memory_of_the_largest_tensor(name, base_dir):
    found = measure(base_dir, f"{name}:{FORMATS[name].writer.QUANTIZATIONS[0]}")
    assert found["size"] > TOKEN_EMBEDDING_BYTES
    assert found["above"] < 1.3 * TOKEN_EMBEDDING_BYTES + SMALL_FILES_BYTES
