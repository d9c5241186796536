"""How the weights that one device holds relate to the weights of the whole model."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParamSharding:
    """Which pieces of a model's weights a device holds; by default all of them.

    Leaves are divided in two ways; a leaf may be divided in both:

    - *tensor*: the device computes with its piece (its heads, its part of the feed-forward features and of
    the vocabulary), and the results are summed over the devices of the axis;
    - *gathered*: the device only stores its piece; the whole leaf is gathered over the axis just before it is
    used, and its gradient is summed and divided again (fully sharded data parallelism).

    Instances are hashable, so they can be static options of a model. ``flax_distil.parallel`` makes them from
    a mesh.

    Attributes:
        tensor_axis: Mesh axis that heads and feed-forward features are divided over; None for none.
        vocabulary_axis: Mesh axis that the token embedding's rows are divided over; None for none.
        gather_axis: Mesh axis that stored pieces are gathered over; None if nothing is gathered.
        gather_dimensions: Pairs of the path of a leaf below ``encoder/`` or ``decoder/`` and the dimension in
            which its pieces are joined, counted with the layer axis of stacked layers. Layers that are not
            stacked have paths ``layers/*/…``.
    """

    tensor_axis: str | None = None
    vocabulary_axis: str | None = None
    gather_axis: str | None = None
    gather_dimensions: tuple[tuple[str, int], ...] = ()


REPLICATED = ParamSharding()
"""Every device holds all weights."""
