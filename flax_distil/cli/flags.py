"""Flags from a configuration dataclass: names and types from its fields, help from its docstring."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from flax_distil.cli.config_files import read_config_file
from flax_distil.cli.flag_values import LARGEST, check_value, shortened
from flax_distil.core.errors import InputError

Config = TypeVar("Config")

ALIASES = {
    "model_name_or_path": "--model",
    "teacher_model_name_or_path": "--teacher",
    "assistant_model_name_or_path": "--assistant_model",
    "output_dir": "-o",
    "hub_dataset_id": "--hub_model_id",
    "speaker_column_name": "--speaker_id_column_name",
}
"""Shorter names of flags."""

POSITIONAL = "files"
"""The field that takes the arguments without a flag."""

METAVARS = {int: "N", float: "X", str: "TEXT", bool: "true|false", dict: "JSON"}
"""What stands for a value in ``--help``."""

MOST_CHARACTERS = 10_000
"""Of an argument. The parser tries values as YAML, whose reader ends the process where they nest deeply."""

WORDS = {"true": "true", "yes": "true", "false": "false", "no": "false"}
"""What a switch may be given, and what that means."""

SECTIONS = (
    ("Planning", r"topology|^what$|search_seconds|^json$|dry_run|^label_length"),
    ("Measurement", r"^baseline_model|^latency_samples"),
    (
        "Model",
        r"model_name_or_path|model_revision|subfolder|^cache_dir$|^token$|_layers|_layer_indices|^max_source|"
        r"^dtype|use_scan|gradient_checkp|^max_heads",
    ),
    ("Devices", r"parallelism|mesh|shard_voc|sharding|^coordinator|process|^initialization|^teacher_dtype"),
    (
        "Decoding",
        r"^num_beams|^best_of|^length_penalty|^patience|^temperatures|^top_|compression_ratio_t|^logprob_t|^no_speech_t|"
        r"^repetition_p|^no_repeat|^suppress_t|^max_initial|^prompt|^hotwords|^carry_|^clip_t|^halluc|^multiling|^prefix|"
        r"^generation_|assistant|^mode$|chunk_length_s|stride_length_s|on_prev_tokens|chunk_merging|_punctuations$|"
        r"^word_time",
    ),
    (
        "Output",
        r"output|skip_existing|^verbose|push_to_hub|hub_|samples_per_shard|export_|save_|logging_|resume_|overwrite_|^max_line|^max_words|"
        r"^highlight",
    ),
    ("Noise and augmentation", r"^mask_|noise|^snr_db|speed_factors"),
    (
        "Data",
        r"dataset|^recursive|split_name|stopping_str|streaming|shuffle_buffer|source_retry|concatenate|_column_name|"
        r"_samples|_num_workers|^files$|^channel$|^sort_by_speaker|^split_channels$|cache_encoder|encoder_cache",
    ),
    ("Speech and labels", r"language|task|^vad|timestamp|condition_on_prev|_length|batch_size_in_tokens"),
    ("Filters of the training data", r"threshold|_in_seconds|min_avg|max_compression|max_no_speech|drop_"),
    ("Loss", r"ce_weight|kl_weight|mse_weight|temperature|label_smoothing"),
    ("Training", r"batch_size|steps|epochs|learning_rate|lr_|adam|norm|decay|precision|freeze|dropout|seed"),
)  # fmt: skip
"""Headings of ``--help``, and which flags stand below each: the first that matches."""


def read_flags(config_class: type[Config], arguments: Sequence[str], *, program: str) -> Config:
    """Parse flags, and the YAML or JSON file that ``--config`` names, into a configuration.

    Flags win over the file. A switch may stand alone (``--push_to_hub``) or with its value, and so may a
    flag of text whose field has ``metadata={"switch": …}``: alone, or ``true``, it has that value. The
    values of a list stand one after the other (``--decoder_layer_indices 0 3``).

    Args:
        config_class: frozen dataclass with an ``Attributes:`` section in its docstring, or in
            those of its bases.
        arguments: the flags.
        program: name shown in the help.

    Raises:
        InputError: if a flag is unknown or missing, or its value of another type; and from the
            configuration's own checks.
        SystemExit: after ``--help`` was printed.
    """
    from jsonargparse import Namespace

    hints = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    _check_lengths(arguments)
    switches = {
        name: field.metadata["switch"] for name, field in fields.items() if "switch" in field.metadata
    }
    parser = _parser(config_class, hints, program)
    files, rest = _config_files(arguments)
    values = {} if {"-h", "--help"} & set(rest) else _of_files(files, hints, switches)
    try:
        given = vars(parser.parse_args(_with_values(hints, switches, rest), Namespace(**values)))
    except argparse.ArgumentError as error:
        raise InputError(f"{_sentence(str(error))} ({program} --help lists the flags)") from error
    except (ValueError, OverflowError, RecursionError) as error:  # of numbers that no machine holds
        raise InputError(f"a flag cannot be read: {shortened(str(error))}") from error
    chosen = {name: _as_float(given[name], hints[name]) for name in fields}
    for name, value in chosen.items():
        if value is None and type(None) not in _options(hints[name]):
            raise InputError(f"--{name} cannot be null: leave it out for its default")
        if value != fields[name].default:
            check_value(name, value)
    return config_class(**chosen)


def _as_float(value: Any, hint: Any) -> Any:
    """Return a whole number as a float where the flag takes any number: a file may give either."""
    options = _options(hint)
    wanted = type(value) is int and float in options and int not in options
    return float(value) if wanted and abs(value) <= LARGEST else value


def _check_lengths(arguments: Sequence[str]) -> None:
    longest = max(arguments, key=len, default="")
    if len(longest) > MOST_CHARACTERS:
        raise InputError(
            f"argument {shortened(longest)!r} is {len(longest)} characters long: expected at most "
            f"{MOST_CHARACTERS}"
        )


def _config_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files that ``--config`` names, and the other arguments."""
    files, others, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name != "--config":
            others.append(argument)
        elif equals or rest:
            files.append(value if equals else rest.pop(0))
        else:
            raise InputError("--config names no file: expected the path of a YAML or JSON file")
    return files, others


def _of_files(files: Sequence[str], hints: Mapping[str, Any], switches: Mapping[str, str]) -> dict[str, Any]:
    """Return the flags of files, those of later ones before those of earlier ones."""
    values: dict[str, Any] = {}
    for file in files:
        for name, value in read_config_file(file).items():
            if name not in hints:
                raise InputError(f"--config: {file!r}: flag {shortened(name)!r} is not accepted")
            switch = name in switches and isinstance(value, bool)
            values[name] = (switches[name] if value else None) if switch else value
    return values


def _parser(config_class: type, hints: dict[str, Any], program: str) -> argparse.ArgumentParser:
    from jsonargparse import ArgumentParser

    fields = dataclasses.fields(config_class)
    positional = [field.name for field in fields if field.name == POSITIONAL]
    parser = ArgumentParser(
        prog=program,
        usage=" ".join([program, *(f"{name.upper()}…" for name in positional), "[flags]"]),
        description=(config_class.__doc__ or "").strip().splitlines()[0],
        exit_on_error=False,
        allow_abbrev=False,
        parser_mode="json",
        print_config=None,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file of flags; flags given here win.")
    parser.add_argument("--quiet", action="store_true", help="Show nothing but warnings and errors.")
    groups: dict[str, Any] = {}
    texts = _descriptions(config_class)
    for title in dict.fromkeys(section(field.name) for field in fields):
        groups[title] = parser.add_argument_group(title)
    for field in fields:
        options: dict[str, Any] = {"help": texts[field.name], "type": hints[field.name]}
        if _is_list(hints[field.name]):
            options |= {"type": _element(hints[field.name]), "nargs": "*" if positional else "+"}
        if field.name in positional:
            groups[section(field.name)].add_argument(field.name, **options)
            continue
        required = field.default is dataclasses.MISSING
        options |= {"required": True} if required else {"default": field.default}
        if hints[field.name] is not bool:
            options["metavar"] = _metavar(hints[field.name])
        names = [f"--{field.name}", *([ALIASES[field.name]] if field.name in ALIASES else [])]
        groups[section(field.name)].add_argument(*names, **options)
    return parser


def section(name: str) -> str:
    """Return the heading of ``--help`` that a flag stands under."""
    return next((title for title, pattern in SECTIONS if re.search(pattern, name)), "Other")


def _descriptions(config_class: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each field."""
    import docstring_parser

    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        parsed = docstring_parser.parse(base.__doc__ or "", style=docstring_parser.DocstringStyle.GOOGLE)
        texts |= {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}
    return texts


def switched_on(name: str, arguments: Sequence[str]) -> bool:
    """Say whether a switch is on the command line, before it is known whose flags the others are."""
    given = [index for index, argument in enumerate(arguments) if argument.partition("=")[0] == f"--{name}"]
    if not given:
        return False
    value = arguments[given[-1]].partition("=")[2] or "".join(arguments[given[-1] + 1 :][:1])
    return value.lower() not in ("false", "no")


def _with_values(
    hints: Mapping[str, Any], switches: Mapping[str, str], arguments: Sequence[str]
) -> list[str]:
    """Give switches that stand alone their value."""
    completed: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            pass
        elif bool in _options(hints.get(name)):
            if not equals:
                value = rest.pop(0) if rest and rest[0].lower() in WORDS else "true"
            argument = f"--{name}={WORDS.get(value.lower(), value)}"
        elif name in switches:
            if not equals:
                value = "true" if not rest or rest[0].startswith("-") else rest.pop(0)
            value = {"true": switches[name], "false": "null"}.get(value.lower(), value)
            argument = f"--{name}={value}"
        completed.append(argument)
    return completed


def _is_list(hint: Any) -> bool:
    return any(typing.get_origin(option) is list for option in _options(hint))


def _element(hint: Any) -> Any:
    return next(typing.get_args(option)[0] for option in _options(hint) if typing.get_origin(option) is list)


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _metavar(hint: Any) -> str:
    if _is_list(hint):
        hint = _element(hint)
    kind = next(option for option in _options(hint) if option is not type(None))
    return METAVARS.get(typing.get_origin(kind) or kind, "VALUE")


def _sentence(message: str) -> str:
    """Return the parser's message, which lists every type it tried, as one sentence."""
    lines = [line.strip() for line in message.splitlines()]
    if missing := re.match(r"the following arguments are required: (.+)", lines[0]):
        return "missing " + ", ".join(f"--{name}" for name in missing[1].split(", "))
    key = re.match(r'Parser key "(\w+)"(?: element \d+)?:(.*)', lines[0])
    if key is None:
        return shortened(" ".join(lines).rstrip("."), most=300)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    expected = re.findall(r"Expected an? <class '(\w+)'>", message)
    if given is None or not expected:
        return shortened(
            f"--{key[1]}: {' '.join([key[2].strip(), *lines[1:]]).strip()}".rstrip("."), most=300
        )
    kinds = {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
        "dict": "a JSON object",
    }
    wanted = [kinds.get(name, name) for name in expected if name != "NoneType"]
    return f"--{key[1]} cannot be {shortened(given[1])!r}: expected {' or '.join(dict.fromkeys(wanted))}"
