"""Count the bytes that an operation of a compiled program moves to and from the chip's main memory."""

from flax_distil.planning.hlo_text import Computation, Instruction, Program

_MOVES_NOTHING = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
    "after-all", "opt-barrier", "partition-id",
)  # fmt: skip
_READS_A_PART = ("dynamic-slice", "gather", "slice")


def memory_traffic(program: Program, within: Computation, instruction: Instruction) -> int:
    """Count the bytes of the operands and results that lie in main memory.

    Where an array is only sliced, gathered from or updated in place, only the part that is read or written
    counts. Asynchronous copies count where they start. Arrays count with the padding of their tiles.
    """
    opcode = instruction.opcode
    if opcode in _MOVES_NOTHING or opcode.endswith(("-done", "-update")):
        return 0
    if opcode.endswith("-start"):
        return _copied(instruction)
    operands = [within.instructions.get(name) for name in instruction.operands]
    inner = program.computations.get(instruction.called.get("calls", "")) if opcode == "fusion" else None
    if inner is not None:
        read = sum(
            _size(operand) if part is None else part
            for operand, part in zip(operands, _parts(inner), strict=False)
        )
        return read + _written(inner, instruction)
    if opcode == "dynamic-update-slice":
        return 2 * _size(operands[1])
    if opcode in _READS_A_PART:
        return 2 * _size(instruction)
    return sum(map(_size, operands)) + _size(instruction)


def _size(instruction: Instruction | None) -> int:
    return 0 if instruction is None else sum(array.bytes_in_main_memory for array in instruction.result)


def _copied(start: Instruction) -> int:
    """Count a copy or slice between memories: the size of its smaller side, for each end in main memory."""
    ends = [array for array in start.result if array.sides][:2]
    if len(ends) < 2:
        return _size(start)
    moved = min(array.bytes for array in ends)
    return sum(moved for array in ends if array.bytes_in_main_memory)


def _parts(fused: Computation) -> list[int | None]:
    """Return how many bytes of each operand a fusion reads; None for all of them."""
    parts: dict[int, int | None] = {}
    for name, parameter in fused.instructions.items():
        if parameter.opcode != "parameter":
            continue
        users = [user for user in fused.instructions.values() if name in user.operands]
        part: int | None = 0
        for user in users:
            is_source = user.operands[0] == name
            if part is None or not is_source or user.opcode not in (*_READS_A_PART, "dynamic-update-slice"):
                part = None
            elif user.opcode in _READS_A_PART:
                part += sum(array.bytes for array in user.result)
        parts[int(parameter.argument)] = part
    return [parts.get(index) for index in range(len(parts))]


def _written(fused: Computation, fusion: Instruction) -> int:
    """Return how many bytes a fusion writes; of an update in place only the update counts."""
    root = fused.instructions.get(fused.root)
    while root is not None and root.opcode == "bitcast" and root.operands:
        root = fused.instructions.get(root.operands[0])
    if root is not None and root.opcode == "dynamic-update-slice" and _size(fusion):
        update = fused.instructions.get(root.operands[1])
        return 0 if update is None else sum(array.bytes for array in update.result)
    return _size(fusion)
