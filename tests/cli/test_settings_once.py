"""Every setting of the commands is declared in one class, which all commands that have it share."""

import dataclasses
import inspect
import typing
from collections.abc import Iterator

from flax_distil.cli.main import COMMANDS, config_class
from flax_distil.core.nested import is_nested

DIFFERENT_SETTINGS = {
    "dtype": "in which transcription computes; of the weights of an export that are not quantized",
    "encoder_cache_dir": "where labelling keeps encoder outputs; where training finds them and keeps its own",
    "mode": "how windows are cut; the mode of an evaluation may also be speculative",
    "seed": "numbers drawn at temperatures above 0; those that order and change the training samples",
    "temperature": "of decoding, several in turn; of the two distributions in the KL divergence",
    "vad": "speech that is transcribed; where long recordings are cut into labels",
}
"""Names that mean one thing in one class and another in another, with what they mean."""


def declaring_classes(config: type) -> Iterator[tuple[str, type]]:
    """Yield each setting of a configuration with the class that declares it."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if is_nested(hints[field.name]):
            yield from declaring_classes(hints[field.name])
        else:
            bases = [base for base in config.__mro__ if field.name in inspect.get_annotations(base)]
            yield from ((field.name, base) for base in bases)


def test_every_setting_is_declared_once():
    declared: dict[str, set[type]] = {}
    for command in COMMANDS:
        for name, declaring in declaring_classes(config_class(command)):
            declared.setdefault(name, set()).add(declaring)
    assert {name for name, classes in declared.items() if len(classes) > 1} == DIFFERENT_SETTINGS.keys()
