"""Read a training checkpoint back, and tell whether it is what was saved."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from flax_distil.checkpoints.training.checkpoint_record import DamagedCheckpoint, differing, unseal
from flax_distil.checkpoints.training.leaf_checksums import describe_leaves, leaf_checksums, parse_leaf
from flax_distil.core.errors import InputError
from flax_distil.core.failures import is_passing, short_reason
from flax_distil.core.tree import unflatten
from flax_distil.parallel.processes import all_gather_object

T = TypeVar("T")

STATE, DATA = "state", "data"
"""Items of a checkpoint: the leaves of the state, and its description in JSON."""


class CheckpointReader:
    """Reads one training checkpoint; all processes call every method together.

    Orbax's manager is not used, because it would wait for other processes, of which one may have failed.
    Every method raises :class:`DamagedCheckpoint` on all processes if the checkpoint is damaged for one, and
    ``InputError`` if it cannot be read for another reason, such as a lack of permission.
    """

    def __init__(self, place: Any, *, alone: bool = False) -> None:
        """Describe the folder of a checkpoint; nothing is read.

        Args:
            place: The folder, an ``epath.Path``.
            alone: Whether this process reads without the others, in whatever thread.
        """
        import orbax.checkpoint as ocp

        self._ocp, self._place = ocp, place
        self._gather: Callable[[Any], list[Any]] = (lambda found: [found]) if alone else all_gather_object

    def record(self) -> dict[str, Any]:
        """Return the description of the checkpoint, whose digest is checked."""
        handler = self._ocp.JsonCheckpointHandler()
        return self._read(lambda: unseal(handler.restore(self._place / DATA)))

    def state(self, template: Any, record: dict[str, Any]) -> Any:
        """Return the state, whose checksums are compared.

        Args:
            template: Pytree whose structure, types and shardings the state has.
            record: Result of :meth:`record`.

        Raises:
            InputError: If the template has other leaves than the checkpoint.
        """
        if differences := differing(record["leaves"], describe_leaves(template)):
            raise InputError(
                f"{self._place} does not fit the state of this run (another model, optimizer or precision?): "
                f"{', '.join(differences)}"
            )
        handler = self._ocp.StandardCheckpointHandler()
        wanted = self._ocp.args.StandardRestore(jax.tree.map(_abstract, template))
        return self._checked(lambda: handler.restore(self._place / STATE, args=wanted), record)

    def branch(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Return one branch of a state of nested dictionaries in the host's memory; it is compared too."""
        leaves = {path: text for path, text in record["leaves"].items() if path.startswith(f"{name}/")}
        template = unflatten({path: parse_leaf(text) for path, text in leaves.items()})
        wanted = self._ocp.args.PyTreeRestore(
            item=template,
            restore_args=self._ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
        handler = self._ocp.PyTreeCheckpointHandler()
        return self._checked(lambda: handler.restore(self._place / STATE, args=wanted), record)[name]

    def _checked(self, function: Callable[[], Any], record: dict[str, Any]) -> Any:
        state = self._read(function)
        found = leaf_checksums(state)
        saved = {path: record["checksums"].get(path) for path in found}
        if differences := differing(saved, found, limit=3):
            raise DamagedCheckpoint(f"wrong checksums: {', '.join(differences)}")
        return state

    def _read(self, function: Callable[[], T]) -> T:
        """Call a function that reads; if it fails on one process, it fails on all."""
        problem = None
        try:
            result = function()
        except Exception as error:
            problem = (is_passing(error), short_reason(error))
        problems = list(filter(None, self._gather(problem)))
        for passing, reason in sorted(problems, reverse=True):
            if passing:
                raise InputError(
                    f"{self._place} cannot be read ({reason}): mend that, and run the same command again"
                )
            raise DamagedCheckpoint(reason)
        return result


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf
