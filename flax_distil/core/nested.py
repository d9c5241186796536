"""Configurations made of smaller ones: each setting is declared once, in the class that uses it.

A configuration is a frozen, keyword-only dataclass. Its fields are settings ("leaves") or nested dataclasses
of the same kind, to any depth. The command line and configuration files name every leaf by its own name,
without the path to it, so the names of visible leaves are unique within a configuration.
"""

import dataclasses
import difflib
import functools
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from flax_distil.core.errors import InputError
from flax_distil.core.secrets import without_secrets

Config = TypeVar("Config")

_OVERRIDES = "overrides"
_SWITCH = "switch"
_HIDDEN = "hidden"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One setting of a configuration.

    Attributes:
        name: Name of the setting, which is the name of its flag.
        path: Names of the attributes that lead to it from the outermost configuration.
        declared_type: Its type in its own class.
        default: Its default, or ``dataclasses.MISSING`` for a setting that must be given.
        text: Description of the setting in the docstring of its class.
        section: Heading under which it is listed: the headline of its class; empty for the outermost
            configuration itself.
        switch: Value of the flag when it stands alone, without a value; None if it must have a value.
            Booleans may always stand alone.
        hidden: Whether the setting has no flag and can only be given in Python.
        secret: Whether the value must never be shown or stored.
    """

    name: str
    path: tuple[str, ...]
    declared_type: Any
    default: Any
    text: str
    section: str
    switch: str | None
    hidden: bool
    secret: bool

    @property
    def hint(self) -> Any:
        """Type of its values, without None for a setting that must be given."""
        return _without_none(self.declared_type) if self.required else self.declared_type

    @property
    def required(self) -> bool:
        """Whether the setting has no default."""
        return self.default is dataclasses.MISSING


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Overrides:
    hide: Collection[str]
    show: Collection[str] | None
    rename: Mapping[str, str]
    defaults: Mapping[str, Any]
    types: Mapping[str, Any]
    help: Mapping[str, str]
    section: str | None


def setting(default: Any = dataclasses.MISSING, *, switch: str | None = None, hidden: bool = False) -> Any:
    """Declare a setting with options that a plain annotation cannot express.

    Args:
        default: Its default; a setting without one must be given.
        switch: Value of the flag when it stands alone (``--gradient_checkpointing`` means ``full``).
        hidden: Whether no command has a flag for it.
    """
    return dataclasses.field(default=default, metadata={_SWITCH: switch, _HIDDEN: hidden})


def nested(
    default: Any = dataclasses.MISSING,
    *,
    hide: Collection[str] = (),
    show: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    types: Mapping[str, Any] | None = None,
    help: Mapping[str, str] | None = None,
    section: str | None = None,
) -> Any:
    """Declare a nested configuration whose leaves differ here from what their own class declares.

    Args:
        default: Instance of the class, whose values are the defaults of the leaves.
        hide: Names of leaves that have no flag here.
        show: Names of the only leaves that have a flag here; by default all but the hidden ones.
        rename: New names of leaves that have another name here, by their names.
        defaults: New defaults of leaves by name, where no instance can be given as ``default``.
            ``dataclasses.MISSING`` makes a leaf required.
        types: Types that the flags of some leaves accept here instead of their own, such as one without null.
        help: Descriptions that replace those of the class, by name.
        section: Heading of its leaves in ``--help``, instead of the headline of its class. Leaves further
            inside keep their own heading, unless ``show`` names the leaves.
    """
    overrides = _Overrides(
        hide=hide,
        show=show,
        rename=rename or {},
        defaults=defaults or {},
        types=types or {},
        help=help or {},
        section=section,
    )
    return dataclasses.field(default=default, metadata={_OVERRIDES: overrides})


def all_leaves(config_class: type) -> tuple[Leaf, ...]:
    """Return every leaf of a configuration, including hidden ones, in the order of declaration.

    Raises:
        TypeError: If two visible leaves have the same name, or a declaration names unknown leaves.
    """
    return _find_leaves(config_class)


def leaves(config_class: type) -> tuple[Leaf, ...]:
    """Return the leaves of a configuration that a flag can set."""
    return tuple(leaf for leaf in all_leaves(config_class) if not leaf.hidden)


def build(config_class: type[Config], values: Mapping[str, Any] | None = None, /, **settings: Any) -> Config:
    """Build a configuration from settings by their flat names; all others have their defaults.

    Args:
        config_class: Class of the configuration.
        values: Settings by name.
        settings: More settings.

    Raises:
        InputError: If a name is unknown, a required setting is missing, or a class of the configuration
            refuses its values.
    """
    defaults = {leaf.path: leaf.default for leaf in all_leaves(config_class)}
    return _construct(config_class, defaults, {**(values or {}), **settings})


def replace(config: Config, **values: Any) -> Config:
    """Return a configuration with some settings changed, each named by its flat name."""
    kept = {leaf.path: _value(config, leaf) for leaf in all_leaves(type(config))}
    return _construct(type(config), kept, values)


def flatten(config: Any) -> dict[str, Any]:
    """Return the values of the visible leaves by name, for files and reports: nothing in them is secret."""
    values = {leaf.name: _value(config, leaf) for leaf in leaves(type(config)) if not leaf.secret}
    return {
        name: without_secrets(value) if isinstance(value, str) else value for name, value in values.items()
    }


def flatten_names(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their flat names; they may be given flat, or nested like the configuration.

    Raises:
        InputError: If a name is unknown, or given twice.
    """
    found: dict[str, Any] = {}
    for name, value in _flat_items(config_class, (), values):
        if name in found:
            raise InputError(f"flag {name!r} is given twice")
        found[name] = value
    return found


def is_nested(hint: Any) -> bool:
    """Whether a field of this type is a nested configuration."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def type_options(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; of a type that is not a union, the type alone."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def nearest_name(name: str, names: Collection[str], *, prefix: str = "") -> str:
    """Return a question that suggests the most similar known name; empty if no name is similar."""
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], names, n=1)
    return f", did you mean {prefix}{near[0]}?" if near else ""


@functools.cache
def _find_leaves(config_class: type) -> tuple[Leaf, ...]:
    found: list[Leaf] = []
    hints, texts = typing.get_type_hints(config_class), _descriptions(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if is_nested(hint) and not field.metadata.get(_HIDDEN):
            found += _nested_leaves(field, hint)
        else:
            found.append(_own_leaf(config_class, field, hint, texts))
    names = [leaf.name for leaf in found if not leaf.hidden]
    groups = {leaf.path[0] for leaf in found if len(leaf.path) > 1}
    if twice := sorted({name for name in names if names.count(name) > 1 or name in groups}):
        raise TypeError(f"{config_class.__name__} has more than one setting named {', '.join(twice)}")
    return tuple(found)


def _own_leaf(config_class: type, field: Any, hint: Any, texts: Mapping[str, str]) -> Leaf:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    declaring = next(base for base in config_class.__mro__ if field.name in inspect.get_annotations(base))
    return Leaf(
        name=field.name,
        path=(field.name,),
        declared_type=hint,
        default=default,
        text=texts.get(field.name, ""),
        section="" if declaring is config_class else _headline(declaring),
        switch=field.metadata.get(_SWITCH),
        hidden=field.metadata.get(_HIDDEN, False),
        secret=not field.repr,
    )


def _nested_leaves(field: Any, hint: type) -> Iterator[Leaf]:
    """Yield the leaves of a nested configuration as its parent declares them."""
    empty = _Overrides(hide=(), show=None, rename={}, defaults={}, types={}, help={}, section=None)
    overrides: _Overrides = field.metadata.get(_OVERRIDES, empty)
    inner, own = all_leaves(hint), overrides.section or _headline(hint)
    named = {
        *overrides.hide,
        *(overrides.show or ()),
        *overrides.rename,
        *overrides.defaults,
        *overrides.types,
        *overrides.help,
    }
    if unknown := sorted(named - {leaf.name for leaf in inner}):
        raise TypeError(f"{hint.__name__} has no setting named {', '.join(unknown)}")
    for leaf in inner:
        default = leaf.default
        if field.default is not dataclasses.MISSING:
            default = _value(field.default, leaf)
        changes: dict[str, Any] = {"default": default}
        if not leaf.hidden:  # a hidden leaf may have the name of a visible one
            name = leaf.name
            changes["default"] = default = overrides.defaults.get(name, default)
            changes |= {
                "name": overrides.rename.get(name, name),
                "declared_type": overrides.types.get(name, leaf.declared_type),
                "text": overrides.help.get(name, leaf.text),
                "hidden": name in overrides.hide or name not in (overrides.show or (name,)),
            }
        listed = overrides.section is not None and overrides.show is not None
        section = leaf.section if len(leaf.path) > 1 and not listed else own
        yield dataclasses.replace(leaf, path=(field.name, *leaf.path), section=section, **changes)


def _without_none(hint: Any) -> Any:
    options = [option for option in type_options(hint) if option is not type(None)]
    return functools.reduce(lambda left, right: left | right, options)


def _value(config: Any, leaf: Leaf) -> Any:
    return functools.reduce(getattr, leaf.path, config)


def _construct(
    config_class: type[Config], kept: Mapping[tuple[str, ...], Any], values: Mapping[str, Any]
) -> Config:
    known = {leaf.name: leaf for leaf in leaves(config_class)}
    for name in values:
        if name not in known:
            raise InputError(f"setting {name!r} is not known{nearest_name(name, known)}")
    chosen = {**kept, **{known[name].path: _as_tuple(value, known[name]) for name, value in values.items()}}
    named = {leaf.path: leaf.name for leaf in known.values()}
    missing = [named.get(path, path[-1]) for path, value in chosen.items() if value is dataclasses.MISSING]
    if missing:
        raise InputError(f"missing {', '.join(f'--{name}' for name in missing)}")
    return _assemble(config_class, (), chosen)


def _as_tuple(value: Any, leaf: Leaf) -> Any:
    """Return a list as a tuple where the setting is declared as one, because tuples are hashable."""
    declares_tuple = any(typing.get_origin(option) is tuple for option in type_options(leaf.hint))
    return tuple(value) if isinstance(value, list) and declares_tuple else value


def _assemble(config_class: type, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> Any:
    hints = typing.get_type_hints(config_class)
    arguments = {}
    for field in dataclasses.fields(config_class):
        here, hint = (*path, field.name), hints[field.name]
        arguments[field.name] = values[here] if here in values else _assemble(hint, here, values)
    return config_class(**arguments)


def _flat_items(
    config_class: type, prefix: tuple[str, ...], values: Mapping[Any, Any]
) -> Iterator[tuple[str, Any]]:
    below = [leaf for leaf in leaves(config_class) if leaf.path[: len(prefix)] == prefix]
    for key, value in values.items():
        named = ".".join(map(str, (*prefix, key)))
        group = next((leaf.path for leaf in below if key in leaf.path[len(prefix) : -1]), None)
        leaf = next((leaf for leaf in below if key == leaf.name or leaf.path == (*prefix, key)), None)
        if group is not None and isinstance(value, Mapping):
            yield from _flat_items(config_class, group[: group.index(key, len(prefix)) + 1], value)
        elif leaf is not None:
            yield leaf.name, value
        elif group is not None:
            raise InputError(f"{named!r} is a group of flags: expected names and values below it")
        else:
            near = nearest_name(str(key), [leaf.name for leaf in below])
            raise InputError(f"flag {_shortened(named)!r} is not accepted{near}")


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}"


def _headline(config_class: type) -> str:
    return (config_class.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _descriptions(config_class: type) -> dict[str, str]:
    """Return the descriptions of fields by name, from the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        document = inspect.cleandoc(base.__doc__ or "")
        section = re.search(r"^(?:Attributes|Args):\n((?: +.*\n?|\n)*)", document, re.M)
        entries = re.findall(r"^    (\w+): ((?:.*\n?)(?:^ {5,}.*\n?)*)", section[1] if section else "", re.M)
        texts |= {name: " ".join(text.split()) for name, text in entries}
    return texts
