"""How the weights on one device relate to the weights of the whole model."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParamSharding:
    """Which pieces of a model's weights a device holds; the default is all of them.

    Two ways to cut, of which a leaf may know both:

    - *tensor*: the device computes with its piece as it is (its heads, its part of the feed-forward
      and of the vocabulary) and adds up what the others of the axis computed;
    - *gathered*: the piece is only stored here; the whole is gathered over the axis just before it
      is used, and its gradient is summed and cut again (fully sharded data parallelism).

    Hashable, so part of the static options of a model. ``flax_distil.parallel`` makes it from a mesh.

    Attributes:
        tensor_axis: Mesh axis that heads and feed-forward features are divided over; None for none.
        vocabulary_axis: Mesh axis that the token embedding's rows are divided over; None for none.
        gather_axis: Mesh axis that stored pieces are gathered over; None if nothing is.
        gather_dimensions: Path of a leaf below ``encoder/`` or ``decoder/``, and the dimension (of
            the leaf with its layer axis) in which its pieces are put together; ``layers/*/…`` of layers
            that are one by one.
    """

    tensor_axis: str | None = None
    vocabulary_axis: str | None = None
    gather_axis: str | None = None
    gather_dimensions: tuple[tuple[str, int], ...] = ()


REPLICATED = ParamSharding()
"""Every device holds all weights."""
