"""Read a pickle as data, so that nothing in it can run.

A pickle is a program that builds an object: it may name any function of any module and call it. Here its
opcodes are interpreted without ever importing or calling anything. What would be a call becomes a
:class:`Call`, a record of the function's name and its arguments, and the caller decides what it knows.

Source: ``pickletools`` of Python, which documents every opcode.
"""

import dataclasses
import pickletools
from typing import Any

from flax_distil.core.fields import one_line

_MAX_OPCODES = 20_000_000  # a checkpoint with the state of its optimizer has about 0.1 million


class PickleError(ValueError):
    """The contents are no pickle that can be read as data."""


@dataclasses.dataclass(frozen=True)
class Named:
    """Name of something in a module, which was not imported."""

    name: str


@dataclasses.dataclass
class Call:
    """A call that was not made; with the items and the state that were to be given to its result.

    Attributes:
        name: Module and name of the function, such as ``torch._utils._rebuild_tensor_v2``.
        args: The arguments.
        items: Items that were set, as on a dictionary.
    """

    name: str
    args: tuple[Any, ...]
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PersistentId:
    """A reference to something outside of the pickle."""

    value: Any


def read_pickle(contents: bytes) -> Any:
    """Interpret a pickle.

    Args:
        contents: The pickle; numbers, texts, bytes, collections, calls and references are known.

    Returns:
        What it describes; calls are :class:`Call`, and references :class:`PersistentId`.

    Raises:
        PickleError: If it is damaged, or has an opcode that no checkpoint needs.
    """
    try:
        return _Machine().run(contents)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise PickleError(f"it is damaged ({type(error).__name__}: {one_line(str(error))})") from error


class _Machine:
    """The stack of values, the marks in it, and what was memorized."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, contents: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(contents)):
            if count > _MAX_OPCODES:
                raise PickleError(f"it has more than {_MAX_OPCODES} operations")
            if opcode.name == "STOP":
                return self.pop()
            if opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            else:
                operation = getattr(self, f"do_{opcode.name.lower()}", None)
                if operation is None:
                    raise PickleError(f"it has the operation {opcode.name}")
                operation(argument)
        raise PickleError("it has no end")

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise PickleError("an operation takes more values than there are")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values, self.stack[start:] = self.stack[start:], []
        return values

    def do_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def do_pop(self, _: Any) -> None:
        self.pop()

    def do_proto(self, _: Any) -> None:
        pass

    def do_frame(self, _: Any) -> None:
        pass

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def do_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    do_put = do_long_binput = do_binput
    do_get = do_long_binget = do_binget

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def do_list(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def do_dict(self, _: Any) -> None:
        target: dict[Any, Any] = {}
        _set_items(target, self.pop_to_mark())
        self.stack.append(target)

    def do_tuple1(self, _: Any) -> None:
        self.stack.append((self.pop(),))

    def do_tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def do_tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    def do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self.pop_to_mark())

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        _set_items(self.stack[-1], [key, value])

    def do_setitems(self, _: Any) -> None:
        values = self.pop_to_mark()
        _set_items(self.stack[-1], values)

    def do_global(self, name: str) -> None:
        self.stack.append(Named(name.replace(" ", ".")))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("it names what is no text")
        self.stack.append(Named(f"{module}.{name}"))

    def do_reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Named) or not isinstance(args, tuple):
            raise PickleError("it calls what is no function")
        self.stack.append(Call(function.name, args))

    do_newobj = do_reduce

    def do_build(self, _: Any) -> None:
        """Leave the state of an object out: the metadata of a state dictionary, for one."""
        self.pop()

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(PersistentId(self.pop()))

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise PickleError("it appends to what is no list")
        self.stack[-1].extend(values)


def _set_items(target: Any, values: list[Any]) -> None:
    items = target.items if isinstance(target, Call) else target
    if not isinstance(items, dict) or len(values) % 2:
        raise PickleError("it sets items of what is no dictionary")
    if not all(isinstance(key, (str, int)) for key in values[::2]):
        # To look up a tuple that is nested a million times would overflow the stack of the interpreter.
        raise PickleError("it has a dictionary whose keys are neither texts nor numbers")
    items.update(zip(values[::2], values[1::2], strict=True))


_VALUES = frozenset(
    (
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
        "BINBYTES", "SHORT_BINBYTES",
    )
)  # fmt: skip
"""Opcodes that put their own argument on the stack."""

_CONSTANTS: dict[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
