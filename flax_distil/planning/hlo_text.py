"""Parse the text of a compiled program: computations, instructions, shapes, and how often loops run."""

import dataclasses
import functools
import math
import re

_HEADER = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r" ?(?P<opcode>[a-z][\w\-]*)\(")
_SHAPE = re.compile(r"(?P<type>[a-z]+\d*\w*)\[(?P<sides>[\d,<=]*)\](?:\{(?P<layout>[^}]*)\})?")
_TILE = re.compile(r"^([\d,]*):T\(([\d,]+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(condition|body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"?(\d+)')

_BITS = {"pred": 8, "token": 0, "bf16": 16, "c64": 64, "c128": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """Element type, side lengths and memory layout of one array of a program."""

    element_type: str
    sides: tuple[int, ...]
    layout: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.sides)

    @property
    def bytes(self) -> int:
        """Bytes without padding; elements of an unknown type count as four bytes."""
        return self._bytes_of(self.elements)

    @property
    def bytes_in_main_memory(self) -> int:
        """Bytes in main memory, padded to whole tiles; 0 if the array lies in a core's own memory."""
        if "S(" in self.layout:
            return 0
        sides = list(self.sides)
        if found := _TILE.match(self.layout):
            order = [int(dimension) for dimension in found[1].split(",") if dimension]
            tile = [int(side) for side in found[2].split(",")]
            for dimension, side in zip(order, reversed(tile), strict=False):  # the minor dimension first
                sides[dimension] = -(-sides[dimension] // side) * side
        return self._bytes_of(math.prod(sides))

    def _bytes_of(self, elements: int) -> int:
        digits = re.match(r"[a-z]+(\d+)", self.element_type)
        bits = _BITS.get(self.element_type, int(digits[1]) if digits else 32)
        return elements * bits // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: Name without ``%``.
        opcode: Kind of operation, such as ``fusion`` or ``all-reduce``.
        result: Arrays of the result; those of a tuple in order.
        operands: Names of other instructions of the computation.
        argument: Text between the parentheses, such as ``5`` of ``constant(5)``.
        attributes: Text after the parentheses.
    """

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str = dataclasses.field(repr=False)

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Names of the computations that it calls, by role (``body``, ``calls``, …)."""
        return dict(_CALLED.findall(self.attributes))

    @property
    def branches(self) -> list[str]:
        """Names of the computations of a conditional, of which one runs."""
        if found := _BRANCHES.search(self.attributes):
            return [name.strip().lstrip("%") for name in found[1].split(",")]
        return [name for role, name in self.called.items() if role.endswith("_computation")]

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a pattern that is found in the attributes; None if it is not found."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation:
    """A named sequence of instructions, the last of which is usually its result."""

    name: str
    instructions: dict[str, Instruction]
    root: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A whole HLO module.

    Attributes:
        computations: Computations by name.
        entry: Name of the computation that runs first; empty if there is none.
        unread_lines: Number of lines of computations that could not be read.
    """

    computations: dict[str, Computation]
    entry: str
    unread_lines: int


def read_program(text: str) -> Program:
    """Read the text of an optimized HLO module; lines that cannot be read are counted."""
    computations: dict[str, Computation] = {}
    entry, name, root, unread = "", "", "", 0
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        if not name:
            if header := _HEADER.match(line):
                name, root, instructions = header["name"], "", {}
                entry = name if header["entry"] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name=name, instructions=instructions, root=root)
            name = ""
        elif line.strip():
            found = _INSTRUCTION.match(line)
            instruction = _read_instruction(found["name"], found["rest"]) if found else None
            if found is None or instruction is None:
                unread += 1
                continue
            instructions[instruction.name] = instruction
            root = instruction.name if found["root"] or not root else root
    return Program(computations=computations, entry=entry, unread_lines=unread)


def _read_instruction(name: str, rest: str) -> Instruction | None:
    """Read ``SHAPE opcode(operands), attributes``; a shape may be a tuple of shapes with layouts."""
    end = _closing(rest, 0) if rest.startswith("(") else rest.find(" ")
    found = _OPCODE.match(rest, max(end, 0))
    if end < 0 or found is None:
        return None
    close = _closing(rest, found.end() - 1)
    if close < 0:
        return None
    argument = rest[found.end() : close - 1]
    return Instruction(
        name=name,
        opcode=found["opcode"],
        result=read_shape(rest[:end]),
        operands=tuple(_NAME.findall(argument)),
        argument=argument,
        attributes=rest[close:],
    )


def read_shape(text: str) -> tuple[Array, ...]:
    """Return the arrays of a shape; a bounded side (``<=8``) has the length of its bound."""
    return tuple(
        Array(
            element_type=found["type"],
            sides=tuple(int(side.removeprefix("<=")) for side in found["sides"].split(",") if side),
            layout=found["layout"] or "",
        )
        for found in _SHAPE.finditer(text)
    )


def _closing(text: str, start: int) -> int:
    """Return the index after the parenthesis that closes the one at ``start``; -1 if none does."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    return -1


def trip_count(program: Program, within: Computation, loop: Instruction) -> int | None:
    """Return how often the body of a ``while`` runs; None if this depends on the data.

    A counted loop compares a counter with a bound and adds a constant to the counter in its body.
    Some compilers write the number of runs into the text. Otherwise it is computed from the initial value,
    the bound and the constant.
    """
    if known := _TRIP_COUNT.search(loop.attributes):
        return int(known[1])
    condition = program.computations.get(loop.called.get("condition", ""))
    body = program.computations.get(loop.called.get("body", ""))
    if condition is None or body is None:
        return None
    initial = within.instructions.get(loop.operands[0]) if loop.operands else None

    def entering(index: int) -> int | None:
        if initial is None or initial.opcode != "tuple" or index >= len(initial.operands):
            return None
        return _constant(within, initial.operands[index])

    compared = _comparison(program, condition)
    if compared is None:
        return None
    sides, is_inclusive = compared
    for counter, bound in (sides, sides[::-1]):
        step = _step(program, body, counter.index) if isinstance(counter, _Element) else None
        if isinstance(counter, _Element) and step:
            start = entering(counter.index)
            limit = entering(bound.index) if isinstance(bound, _Element) else bound
            if start is not None and limit is not None:
                past = math.copysign(1, step) if is_inclusive else 0
                return max(0, math.ceil((limit + past - start) / step))
    return None


@dataclasses.dataclass(frozen=True)
class _Element:
    """One element of the tuple that a loop carries."""

    index: int


def _comparison(
    program: Program, condition: Computation
) -> tuple[tuple[int | _Element | None, int | _Element | None], bool] | None:
    """Return both sides of the comparison that continues a loop, and whether equality continues it."""
    root = condition.instructions.get(condition.root)
    if root is None:
        return None
    values = [_value(condition, name) for name in root.operands]
    if root.opcode == "fusion" and (inner := program.computations.get(root.called.get("calls", ""))):
        root = inner.instructions.get(inner.root)
        values = [] if root is None else [_value(inner, name, values) for name in root.operands]
    direction = None if root is None else root.attribute(r"direction=(\w+)")
    if root is None or root.opcode != "compare" or direction in (None, "EQ") or len(values) != 2:
        return None
    return (values[0], values[1]), direction in ("LE", "GE")


def _value(
    within: Computation, name: str, arguments: list[int | _Element | None] | None = None
) -> int | _Element | None:
    """Return a constant, an element of the carried tuple, or an argument of a fusion."""
    instruction = within.instructions.get(name)
    if instruction is None:
        return None
    if instruction.opcode == "get-tuple-element":
        index = instruction.attribute(r"index=(\d+)")
        return None if index is None else _Element(int(index))
    if instruction.opcode == "parameter" and arguments is not None:
        position = int(instruction.argument) if instruction.argument.isdigit() else len(arguments)
        return arguments[position] if position < len(arguments) else None
    if instruction.opcode in ("copy", "bitcast", "convert") and instruction.operands:
        return _value(within, instruction.operands[0], arguments)
    return _constant(within, name)


def _constant(within: Computation, name: str) -> int | None:
    instruction = within.instructions.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "convert"):
        instruction = within.instructions.get(instruction.operands[0]) if instruction.operands else None
    if instruction is None or instruction.opcode != "constant":
        return None
    return int(instruction.argument) if re.fullmatch(r"-?\d+", instruction.argument) else None


def _step(program: Program, body: Computation, index: int) -> int | None:
    """Return what the body of a loop adds to element ``index`` of the tuple that it carries."""
    root = body.instructions.get(body.root)
    if root is None or root.opcode != "tuple" or index >= len(root.operands):
        return None
    update = body.instructions.get(root.operands[index])
    while update is not None and update.opcode in ("copy", "bitcast") and update.operands:
        update = body.instructions.get(update.operands[0])
    if update is None:
        return None
    values: list[int | _Element | None] = [_value(body, name) for name in update.operands]
    inner = program.computations.get(update.called.get("calls", "")) if update.opcode == "fusion" else None
    if inner is not None and (update := inner.instructions.get(inner.root)) is not None:
        values = [_value(inner, name, values) for name in update.operands]
    if update is None or update.opcode != "add" or _Element(index) not in values:
        return None
    return next((value for value in values if isinstance(value, int)), None)
