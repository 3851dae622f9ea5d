"""YAML as configs are written in: no key twice, no dates, 1e-3 a number; and one mapping over another."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import yaml


class ConfigError(ValueError):
    """A config that cannot be used; its text has a line a problem: "file: key: reason (got value)"."""


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's table of plain scalars, less dates (text to us), plus numbers such as 1e-3."""
    date, number = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"
    exponent = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    known: dict[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
    table = {first: [entry for entry in entries if entry[0] != date] for first, entries in known.items()}
    for first in "-+0123456789":
        table[first].append((number, exponent))
    return table


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key given twice is an error."""

    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return _yaml_mapping(text, str(path))


def parsed_override(override: str) -> dict[str, Any]:
    """ "section.key=value" -> {section: {key: value}}. Raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set: expected section.key=value, got {override!r}")
    value = _yaml_mapping(f"value: {text}", f"--set {override}")["value"]
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _yaml_mapping(text: str, source: str) -> dict[str, Any]:
    try:
        values: Any = yaml.load(text, _Loader)  # nosec B506  # a SafeLoader
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML's constructors take a value by its tag, whatever it is: "!!set [1]", "!!int ''".
        raise ConfigError(f"{source}: a value is not what its tag says ({error})") from None
    if values is None:
        return {}
    if not is_mapping(values):
        raise ConfigError(f"{source}: expected sections and keys, got {type(values).__name__}")
    return values


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says, mapping by mapping."""
    values = dict(base)
    for key, value in over.items():
        old = values.get(key)
        values[key] = merged(old, value) if is_mapping(old) and is_mapping(value) else value
    return values


def is_mapping(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether YAML made a mapping of it."""
    return isinstance(value, dict)
