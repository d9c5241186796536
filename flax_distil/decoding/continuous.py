"""Continuous batching: a row that has ended is filled at once with the next window of a queue.

::

    windows    a b c d | e f g h | i j k l        three batches of the encoder
    row 0      aaaaaaaaaaaaaaaaakkkkkkkkk
    row 1      bbbbdddddddgggggggggggiiii         the rows of the decoder never wait for the longest
    row 2      cceeeeeeeehhhhhhhhhhhjjjjj
    row 3      fffffffffffffffffffffllll

All prompts of a batch of the encoder are read at once, and the windows wait in a queue. Putting one into a
row copies its encoder output, the keys and values of its prompt and a few numbers. Nothing of this leaves the
device: a call ends when its queue is empty, and its rows go on in the next call, which brings another queue.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Int
from flax_distil.decoding.loop import GrowingLoop
from flax_distil.decoding.types import GenerateInputs, GenerateOutput


@runtime_checkable
class RefillableLoop(GrowingLoop, Protocol):
    """A loop whose rows may begin at different steps; see the methods of ``DecodeLoop``."""

    def place(self, state: Any, begun: Any, source: Array, row: Array, is_wanted: Array) -> Any: ...  # noqa: D102

    def has_room(self, size: int, state: Any) -> Bool[Array, ""]: ...  # noqa: D102

    def ended(self, state: Any) -> Bool[Array, " B"]: ...  # noqa: D102


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowsInProgress:
    """The rows of a decoder between two calls; on every device its own.

    Attributes:
        search: State of the search, with the small cache.
        ticket_B: What the window in each row is known by; -1 for a free row.
    """

    search: Any
    ticket_B: Int[Array, " B"]

    @classmethod
    def none(cls, search: Any) -> "RowsInProgress":
        """Return free rows, all of which have ended.

        Args:
            search: A state of the search, of which shapes and types count.
        """
        empty = jax.tree.map(lambda leaf: jnp.full(leaf.shape, leaf.dtype == bool, leaf.dtype), search)
        rows = len(search.no_speech_prob_B)
        return cls(empty, jnp.full(rows, -1, jnp.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EndedWindows:
    """The windows that have ended in a call, first those that ended first.

    Attributes:
        output: Their tokens, in B + M rows for B rows of the decoder and a queue of M.
        ticket_R: What each is known by; -1 behind the last.
        row_steps_2: Number of rows times steps that the decoder ran, and how many of them were of windows.
    """

    output: GenerateOutput
    ticket_R: Int[Array, " R"]
    row_steps_2: Int[Array, " 2"]


class _Carry(NamedTuple):
    """What the loop carries: rows, windows that have ended, and how far the queue is used."""

    rows: RowsInProgress
    ended: EndedWindows
    ended_count: Int[Array, ""]
    next: Int[Array, ""]


def decode_queue(
    loop: RefillableLoop,
    rows: RowsInProgress,
    inputs: GenerateInputs,
    ticket_M: Int[Array, " M"],
    most_left: Int[Array, ""],
) -> tuple[RowsInProgress, EndedWindows]:
    """Decode until all windows of a queue are in rows, and at most so many rows are in use.

    Rows with more tokens than the small cache holds are decoded to their end.

    Args:
        loop: Runs the decoder.
        rows: The rows after the last call.
        inputs: The queue: M windows in the order in which they are to begin.
        ticket_M: What each window is known by, at least 0; a window with -1 is left out.
        most_left: Number of rows that may be left in use; with 0 all windows end.
    """
    return _Queue(loop, inputs, ticket_M, most_left).run(rows)


class _Queue:
    """Windows whose prompts were read, and the loop that decodes them."""

    def __init__(
        self, loop: RefillableLoop, inputs: GenerateInputs, ticket_M: Array, most_left: Int[Array, ""]
    ):
        self._loop, self._begun = loop, loop.begin(inputs, 0)
        self._order_M = jnp.argsort(ticket_M < 0, stable=True)
        self._ticket_M, self._size, self._most_left = ticket_M, (ticket_M >= 0).sum(), most_left

    def run(self, rows: RowsInProgress) -> tuple[RowsInProgress, EndedWindows]:
        """See :func:`decode_queue`."""
        loop, (small, large) = self._loop, self._loop.sizes
        count = len(rows.ticket_B) + len(self._ticket_M)
        output = jax.tree.map(
            lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype),
            loop.output(rows.search),
        )
        ended = EndedWindows(output, jnp.full(count, -1, jnp.int32), jnp.zeros(2, jnp.int32))
        nothing = jnp.zeros((), jnp.int32)
        carry = self._decode(small, _Carry(rows, ended, nothing, nothing))

        def grow(carry: _Carry) -> _Carry:
            carry = _with_search(carry, loop.resize(carry.rows.search, large))
            carry = self._decode(large, carry)
            return _with_search(carry, loop.resize(carry.rows.search, small))

        if small != large:
            carry = jax.lax.cond(self._goes_on(large, carry), grow, lambda carry: carry, carry)
        return carry.rows, carry.ended

    def _decode(self, size: int, carry: _Carry) -> _Carry:
        """Decode with a cache of this size, while it has room for another token."""
        return jax.lax.while_loop(
            functools.partial(self._goes_on, size), functools.partial(self._decode_to_an_end, size), carry
        )

    def _goes_on(self, size: int, carry: _Carry) -> Bool[Array, ""]:
        """Say whether a window waits, too many rows are in use, or one of them needs the large cache."""
        small, _ = self._loop.sizes
        search, in_use_B = carry.rows.search, carry.rows.ticket_B >= 0
        goes_on = (carry.next < self._size) | (in_use_B.sum() > self._most_left)
        if size == small:
            return goes_on & self._loop.has_room(size, search)
        return goes_on | ~self._loop.has_room(small, search)

    def _decode_to_an_end(self, size: int, carry: _Carry) -> _Carry:
        """Decode until a window ends, and put the next one of the queue into a free row."""
        loop, in_use_B = self._loop, carry.rows.ticket_B >= 0
        could_begin = (carry.next < self._size) & ~in_use_B.all()

        def goes_on(given: tuple[Any, Array]) -> Bool[Array, ""]:
            search, _ = given
            return (
                ~could_begin
                & in_use_B.any()
                & ~(in_use_B & loop.ended(search)).any()
                & loop.has_room(size, search)
            )

        def step(given: tuple[Any, Array]) -> tuple[Any, Array]:
            search, steps = given
            return loop.step(search), steps + 1

        search, steps = jax.lax.while_loop(goes_on, step, (carry.rows.search, jnp.zeros((), jnp.int32)))
        row_steps_2 = steps * jnp.stack([jnp.full_like(steps, len(in_use_B)), in_use_B.sum()])
        return self._begin_next(self._take_ended(_with_search(carry, search), row_steps_2))

    def _take_ended(self, carry: _Carry, row_steps_2: Int[Array, " 2"]) -> _Carry:
        """Note the tokens of windows that have ended, whose rows are free then."""
        rows, ended, total = carry.rows, carry.ended, len(carry.ended.ticket_R)
        has_ended_B = (rows.ticket_B >= 0) & self._loop.ended(rows.search)
        place_B = jnp.where(has_ended_B, carry.ended_count + jnp.cumsum(has_ended_B) - 1, total)
        output = jax.tree.map(
            lambda noted, new: noted.at[place_B].set(new, mode="drop"),
            ended.output,
            self._loop.output(rows.search),
        )
        return carry._replace(
            rows=dataclasses.replace(rows, ticket_B=jnp.where(has_ended_B, -1, rows.ticket_B)),
            ended=EndedWindows(
                output,
                ended.ticket_R.at[place_B].set(rows.ticket_B, mode="drop"),
                ended.row_steps_2 + row_steps_2,
            ),
            ended_count=carry.ended_count + has_ended_B.sum(),
        )

    def _begin_next(self, carry: _Carry) -> _Carry:
        """Put the next window of the queue into a free row, if there are both."""
        rows, is_free_B = carry.rows, carry.rows.ticket_B < 0
        row = is_free_B.argmax()
        is_wanted = is_free_B.any() & (carry.next < self._size)
        source = self._order_M[jnp.minimum(carry.next, len(self._order_M) - 1)]
        ticket = jnp.where(is_wanted, self._ticket_M[source], rows.ticket_B[row])
        return carry._replace(
            rows=RowsInProgress(
                self._loop.place(rows.search, self._begun, source, row, is_wanted),
                rows.ticket_B.at[row].set(ticket),
            ),
            next=carry.next + is_wanted,
        )


def _with_search(carry: _Carry, search: Any) -> _Carry:
    return carry._replace(rows=dataclasses.replace(carry.rows, search=search))
