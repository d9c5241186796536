"""The results of the check as a Markdown table."""

from collections.abc import Mapping
from typing import Any

Rows = list[tuple[str, str]]


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables of all parts; a part that failed says so in its place."""
    machine = results.get("machine", {})
    lines = [
        f"# {machine.get('device', 'unknown device')}, {machine.get('devices', '?')} devices, "
        f"jax {machine.get('jax', '?')}, {results['date']}",
        "",
        f"Shapes: {results['size']}; all parts took {results['seconds']} s.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    for part, rows in _PARTS.items():
        found = results.get(part)
        if found is None:
            continue
        if "failed" in found or "skipped" in found:
            said = str(found.get("failed") or found.get("skipped")).replace("|", "¦")
            lines.append(f"| {part} | not measured: {said} |")
        else:
            lines += [f"| {name} | {value} |" for name, value in rows(found, results)]
    return "\n".join(lines) + "\n"


def _parity(found: Mapping[str, Any], _: Mapping[str, Any]) -> Rows:
    return [
        (
            f"parity with the CPU, {dtype}",
            f"{'passed' if found[dtype]['passed'] else 'FAILED'}: logits within "
            f"{found[dtype]['largest_logit_difference']:.2g}, {found[dtype]['same_tokens']} of "
            f"{found['recordings']} texts equal",
        )
        for dtype in ("float32", "bfloat16")
    ]


def _attention(found: Mapping[str, Any], _: Mapping[str, Any]) -> Rows:
    kernel, plain = found["kernel"], found["plain"]
    differences = ", ".join(
        f"{part} {found[f'difference_{part}']:.1e}" for part in ("output", "dq", "dk", "dv")
    )
    return [
        (
            f"attention {direction}, kernel / plain XLA",
            f"{1e3 * kernel[direction]:.2f} / {1e3 * plain[direction]:.2f} ms "
            f"({plain[direction] / kernel[direction]:.2f} times as fast)",
        )
        for direction in ("forward", "backward")
    ] + [("largest difference of them, relative to the largest value", differences)]


def _products(found: Mapping[str, Any], _: Mapping[str, Any]) -> Rows:
    return [
        (
            f"{name}: bfloat16 / int8 / int8 with conversion",
            " / ".join(
                f"{found[f'{name}_{kind}']:.0f}" for kind in ("bfloat16", "int8", "int8_with_conversion")
            )
            + " T operations/s",
        )
        for name in ("fc1", "fc2")
    ]


def _step(found: Mapping[str, Any], results: Mapping[str, Any]) -> Rows:
    mfu = "unknown peak" if found["mfu"] is None else f"MFU {100 * found['mfu']:.1f} %"
    theirs = results.get("peer", {}).get("step", {}).get("samples_per_second")
    rows = [
        (
            f"distillation step, batch {found['batch']}, {found['labels']} labels",
            f"{1e3 * found['seconds']['median']:.0f} ms, {found['samples_per_second']:.1f} samples/s, "
            f"{found['tflop_per_second']:.0f} TFLOP/s, {mfu}",
        ),
        ("its peak memory", _gigabytes(found["peak_memory_bytes"])),
        ("recompilations in the steady loop", str(found["recompilations"])),
    ]
    if theirs:
        rows.append(("samples/s over transformers'", f"{found['samples_per_second'] / theirs:.2f}"))
    return rows


def _decode(found: Mapping[str, Any], results: Mapping[str, Any]) -> Rows:
    rows = []
    for name, part in found.items():
        theirs = results.get("peer", {}).get("decode", {}).get(name, {}).get("windows_per_second")
        ratio = f", {part['windows_per_second'] / theirs:.2f} times transformers'" if theirs else ""
        rows.append(
            (
                f"decoding, {name}, {part['windows']} windows",
                f"{part['windows_per_second']:.1f} windows/s "
                f"(encoder {1e3 * part['encoder_seconds']:.0f} ms, "
                f"decoder {1e3 * part['decoder_seconds']:.0f} ms for {part['tokens']} tokens), "
                f"{_gigabytes(part['peak_memory_bytes'])}, {part['recompilations']} recompilations{ratio}",
            )
        )
    return rows


def _peer(found: Mapping[str, Any], _: Mapping[str, Any]) -> Rows:
    rows = []
    if "samples_per_second" in found["step"]:
        rows.append(
            (
                f"transformers on torch {found['torch']}: step, batch {found['step']['batch']}",
                f"{found['step']['samples_per_second']:.1f} samples/s",
            )
        )
    rows += [
        (f"transformers: decoding, {name}", f"{found['decode'][name]['windows_per_second']:.1f} windows/s")
        for name in ("teacher", "student")
    ]
    return rows


def _gigabytes(count: int | None) -> str:
    return "memory unknown" if count is None else f"{count / 1e9:.1f} GB"


_PARTS = {
    "parity": _parity, "attention": _attention, "products": _products, "step": _step, "decode": _decode,
    "peer": _peer,
}  # fmt: skip
