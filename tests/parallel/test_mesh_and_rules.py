"""Meshes and rules refuse what does not fit, naming it."""

import re

import jax
import pytest
from jax.sharding import PartitionSpec as P

from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.assembly import decode_shapes, to_int8_params, whisper_shapes
from flax_distil.model.config import PRESETS, WhisperConfig
from flax_distil.parallel.config import MeshShape
from flax_distil.parallel.make_partitioner import make_partitioner
from flax_distil.parallel.mesh import build_mesh
from flax_distil.parallel.rules import param_sharding, weight_specs


def int8_shapes(config):
    return jax.eval_shape(to_int8_params, whisper_shapes(config))


def test_a_mesh_is_read_from_its_axes():
    assert MeshShape.parse("data=2, fsdp=-1") == MeshShape(data=2, fsdp=-1)
    assert MeshShape.parse("tensor=2") == MeshShape(data=-1, tensor=2)
    assert MeshShape.parse("fsdp=-1") == MeshShape(data=1, fsdp=-1)


@pytest.mark.parametrize("text", ["rows=2", "data", "data=two", "data=2,data=4"])
def test_a_mesh_that_is_not_understood_is_refused(text):
    with pytest.raises(InputError, match="expected data=…,fsdp=…,tensor=…"):
        MeshShape.parse(text)


@pytest.mark.parametrize("sizes", [{"data": 0}, {"fsdp": -2}, {"data": -1, "fsdp": -1}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="cannot be"):
        MeshShape(**sizes)


@pytest.mark.parametrize("shape", [MeshShape(data=3), MeshShape(fsdp=2), MeshShape(data=-1, tensor=4)])
def test_a_mesh_must_multiply_to_the_devices(shape):
    with pytest.raises(InputError, match="does not multiply to the 1 devices"):
        build_mesh(shape, jax.devices()[:1])


def test_an_unknown_parallelism_is_refused():
    with pytest.raises(InputError, match="expected jit or pmap"):
        make_partitioner("pjit", MeshShape())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("of", [whisper_shapes, int8_shapes], ids=["float", "int8"])
def test_every_weight_of_every_size_has_a_rule(preset, of):
    shapes = of(PRESETS[preset])
    specs = flatten(weight_specs(shapes, {"fsdp": 2, "tensor": 2}, vocabulary=False))
    assert set(specs) == set(flatten(shapes))
    assert all("fsdp" in str(spec) for spec in specs.values())  # nothing is stored twice


def test_layers_for_decoding_are_divided_as_those_of_the_stack():
    """The same devices hold the same heads and features, in another order of axes."""
    config = PRESETS["base"]
    stacked = flatten(weight_specs(whisper_shapes(config), {"fsdp": 2, "tensor": 2}, vocabulary=False))
    apart = flatten(weight_specs(decode_shapes(config), {"fsdp": 2, "tensor": 2}, vocabulary=False))
    stack, layer = flatten(whisper_shapes(config)), flatten(decode_shapes(config))
    assert len(apart) > len(stacked)
    for path, spec in apart.items():
        source = re.sub(r"/\d+/", "/", path)
        assert divided(layer[path].shape, spec) == divided(stack[source].shape, stacked[source]), path


def divided(shape, spec):
    """Return the sizes that lie over the axes of a mesh, by axis."""
    return sorted((str(axis), size) for size, axis in zip(shape, spec, strict=False) if axis is not None)


def test_a_leaf_without_a_rule_is_named():
    with pytest.raises(InputError, match="no rule says how weight encoder/adapter/kernel"):
        weight_specs({"encoder": {"adapter": {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}}}, {})


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(InputError, match=r"heads of decoder/layers/\w+/\w+/kernel \(6\).*tensor=4"):
        weight_specs(whisper_shapes(WhisperConfig.preset("tiny.en")), {"tensor": 4})


def test_a_vocabulary_that_does_not_divide_is_named_with_the_remedy():
    shapes = whisper_shapes(WhisperConfig.preset("base"))
    with pytest.raises(InputError, match=r"vocabulary of .* \(51865\).*tensor=2.*shard_vocabulary"):
        weight_specs(shapes, {"tensor": 2})
    weight_specs(shapes, {"tensor": 2}, vocabulary=False)


def test_the_layout_tells_the_model_what_is_divided():
    shapes = whisper_shapes(WhisperConfig.preset("tiny.en"))
    specs = weight_specs(shapes, {"fsdp": 8, "tensor": 2})
    sharding = param_sharding(specs)
    assert (sharding.tensor_axis, sharding.vocabulary_axis, sharding.gather_axis) == (
        "tensor",
        "tensor",
        "fsdp",
    )
    assert dict(sharding.gather_dimensions)["layers/self_attention/out/kernel"] == 3
    assert specs["decoder"]["layers"]["fc1"]["bias"] == P(None, ("tensor", "fsdp"))
    whole = param_sharding(weight_specs(shapes, {}))
    assert whole.gather_axis is None
    assert whole.tensor_axis is None
