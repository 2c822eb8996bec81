"""A typed command line: translated for Hydra, and its mistakes, with what to type instead, in one line."""

import logging
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import AnyNode, Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cxrnet.cli.trainer_arguments import refusal
from cxrnet.core.config import OWN_NAMES, WHOLE, own_mappings
from cxrnet.core.schema import parts_of
from cxrnet.errors import CxrnetError

REFUSALS = (HydraException, OmegaConfBaseException, ValueError, AssertionError, TypeError, OverflowError)
"""Errors that Hydra raises before a command's own work begins."""

# At the beginning of a value, of a part of a list or of one of several values; quoted or not.
_HOME = re.compile(r"(?<=[=,\[\s:\"'])~[\w.-]*(?=[/,\]}\"'\s]|$)")

logger = logging.getLogger("cxrnet")


def parsed(word: str) -> Override | None:
    """Read a word as Hydra does; ``None`` where it can't."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def typed_words(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra gets.

    ``~/xrays`` and ``~name/xrays`` become the home folder's path: a shell leaves them alone behind a dotted key, and
    Hydra can't read them. A mapping that is one whole (``OWN_NAMES`` and ``WHOLE`` of :mod:`cxrnet.core.config`)
    replaces the default instead of being merged into it: the word ``<key>=null`` takes the default away, and
    ``+<key>={...}`` follows.
    """
    words: list[str] = []
    for word in arguments:
        key, equals, value = word.partition("=")
        expanded = f"{key}{equals}{_HOME.sub(_home, f'={value}')[1:]}" if "~" in value else word
        replaced = list(_replaced(expanded))
        words += [f"{name}=null" for name in replaced]
        # With the +, because of two words with one key a sweep drops the first.
        words.append(f"+{expanded}" if key in replaced else expanded)
    return words


def _home(match: re.Match[str]) -> str:
    try:
        return str(Path(match[0]).expanduser())
    except RuntimeError:  # there is no such user
        return match[0]


def _replaced(word: str) -> Iterator[str]:
    """List the keys of the mappings in a word that replace the default; none of ``+key={...}``, which adds to it."""
    override = parsed(word) if "{" in word and not word.startswith("-") else None
    if override is None or override.type != OverrideType.CHANGE:
        return
    key = override.key_or_group
    if override.is_sweep_override():
        if key.rpartition(".")[2] in OWN_NAMES | WHOLE:
            yield key
    elif isinstance(value := override.value(), dict):
        yield from own_mappings({key: value})


def check_options(arguments: Sequence[str], configs: Path) -> None:
    """Refuse what options are made of in the place of an option: ``loss=_base``.

    Raises:
        CxrnetError: there is one.
    """
    for word in arguments:
        key, _, value = word.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if group and re.search(r"(?:^|[\[,\s])_\w", value) and (names := options(configs, group)):
            raise CxrnetError(f"{word}: there is no such option; choose one of {', '.join(names)}")


def options(configs: Path, group: str, known: Sequence[str] | None = None) -> list[str]:
    """List the options of a group; ``known`` where Hydra has listed them."""
    names = known or sorted(file.stem for file in (configs / group).glob("*.yaml"))
    return [name for name in names if not name.startswith("_")]


def explain(error: Exception, configs: Path, config_name: str, arguments: Sequence[str]) -> str:
    """Say what is wrong with a command line, and what to type; Hydra says it in several lines, of paths and grammars.

    Args:
        error: one of :data:`REFUSALS`.
        configs: the folder that the configuration is composed of.
        config_name: the config that stands at its top.
        arguments: the command line that Hydra got.
    """
    overrides = [override for word in arguments if (override := parsed(word)) is not None]
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        asked = any(override.key_or_group == group for override in overrides)
        what = f"{group}={name}: there is no such option" if asked else f"config: {_reason(error).rstrip('.')}"
        return f"{what}; choose one of {', '.join(options(configs, group, error.options))}"
    line = _no_option(error, overrides, configs) or _unreachable(configs, config_name, overrides)
    if line is not None:
        return line
    word = _word(error, overrides)
    if word is None:
        return f"{getattr(error, 'full_key', None) or 'config'}: {_reason(error)}"
    key, cause = word.key_or_group, error.__cause__
    below = _dotted(getattr(cause, "full_key", None))
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) or (below and below != key and _within(key, below)):
        key = max(key, below, key=len)  # data.foo of data={foo: 1}
        others = [str(each.input_line) for each in overrides if each.key_or_group != word.key_or_group]
        adding = "" if is_dataclass(getattr(cause, "object_type", None)) else f" (+{word.input_line} would add it)"
        return _no_such_key(key, _all_names(_composed(configs, config_name, others))) + adding
    return f"{word.input_line}: {_mistake(error, word, configs, config_name)}"


def check_keys(config: DictConfig) -> None:
    """Refuse keys that were added with a ``+`` where a schema says which there are.

    One at the top is only said: other values may name it, as ``${mine}``.

    Raises:
        CxrnetError: there is one.
    """
    names = _all_names(config)
    for key in _added(config):
        line = _no_such_key(key, {name for name in names if not (_within(name, key) or _within(key, name))})
        if "." in key:
            raise CxrnetError(line)
        logger.warning("%s; nothing reads it but values that name it, as ${%s}", line, key)


def _no_such_key(key: str, names: Collection[str]) -> str:
    """Say that there is no such key, and which may be meant: some with the same last part, or one spelled nearly so."""
    group, _, argument = key.partition(".")
    if group == "trainer" and "trainer.devices" in names:
        return refusal(argument)
    end = key.rpartition(".")[2]
    names = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    alike = sorted(name for name in names if name.rpartition(".")[2] == end)[:3]
    alike = alike or get_close_matches(key, names, 1, 0.7)
    return f"{key}: no such key; " + (f"did you mean {' or '.join(alike)}?" if alike else "--help shows all")


def _unreadable(error: OverrideParseException) -> str:
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: not of the form key=value; --help shows the keys"
    if error.__cause__ is not None:  # a function of Hydra's, such as range(1,5), with unsuitable arguments
        return f"{error.override}: {' '.join(str(error.__cause__).split())}"
    escaped = value.replace('"', r"\"")
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"{error.override}: can't be read; close its brackets and quotes, or quote the whole value: {quoted}"


def _word(error: Exception, overrides: Sequence[Override]) -> Override | None:
    """Find the word of the command line that an error is about."""
    said, key = str(error), _dotted(getattr(error.__cause__, "full_key", None))
    quoted = [word for word in overrides if str(word.input_line) in said]
    found = [
        *sorted(quoted, key=lambda word: -len(word.input_line or "")),
        *(word for word in overrides if key and _within(word.key_or_group, key)),
        *(word for word in overrides if key and _within(key, word.key_or_group)),
        *(word for word in overrides if not key and word.key_or_group in said),
    ]
    return found[0] if found else None


def _no_option(error: Exception, overrides: Sequence[Override], configs: Path) -> str | None:
    """Refuse a value that is no name of an option: ``model=3``."""
    for override in overrides if isinstance(error, ValueError) else ():
        names = options(configs, override.key_or_group)
        if names and not isinstance(override.value(), str | list):
            return f"{override.input_line}: there is no such option; choose one of {', '.join(names)}"
    return None


def _unreachable(configs: Path, config_name: str, overrides: Sequence[Override]) -> str | None:
    """Say of the first key that lies below a null, or below a part that a list lacks, what to give instead."""
    choices = [word for word in overrides if (configs / str(word.key_or_group)).is_dir()]
    words = [str(word.input_line) for word in choices if not word.is_sweep_override()]
    with initialize_config_dir(str(configs), version_base="1.3"):
        for word in overrides:
            if word in choices or word.is_delete():
                continue
            try:
                line = _blocked(compose(config_name, words), word, configs)
            except REFUSALS:  # another word is wrong too
                return None
            if line is not None:
                return line
            words += [] if word.is_sweep_override() else [str(word.input_line)]
    return None


def _blocked(config: DictConfig, word: Override, configs: Path) -> str | None:
    """Say what stands in the way of a key; ``None`` where nothing does."""
    key = word.key_or_group
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        above, rest = ".".join(parts[:depth]), ".".join(parts[depth + 1 :])
        if node is None or not isinstance(node, Container | AnyNode) or node._is_interpolation() or node._is_missing():
            return None
        if node._is_none():
            return f"{key}: {above} is null here; {_instead(word, above, part, configs)}"
        if not isinstance(node, Container):
            return None
        if not isinstance(node, ListConfig):
            node = node._get_node(part, validate_access=False)
        elif part.isdecimal() and int(part) < len(node):
            node = node._get_node(int(part))
        else:
            names: list[Any] = [each.get("name") if OmegaConf.is_dict(each) else None for each in node]
            meant = f"{above}.{names.index(part) if part in names else 0}.{rest}".strip(".")
            hint = f"did you mean {meant}?" if names else f"give {above}=[...]"
            return f"{key}: no such key; {above} is a list of {len(names)} here, numbered from 0; {hint}"
    return None


def _instead(word: Override, above: str, part: str, configs: Path) -> str:
    """Say what to give where the key of a word lies below a null."""
    group, inner, _ = above.partition(".")
    names = options(configs, group)
    if names and not inner:
        return f"give {above}=<option> too: {', '.join(names)}"
    value = str(word.input_line).partition("=")[2]
    whole = f"give all of it, as {above}=" + (f"[{value}]" if part.isdecimal() else f"{{{part}: ...}}")
    return whole if part.isdecimal() or not names else f"{whole}, or take another {group}=<option>"


def _mistake(error: Exception, word: Override, configs: Path, config_name: str) -> str:
    """Say what is wrong with a word whose key there is."""
    key, _, value = str(word.input_line).partition("=")
    if not isinstance(error.__cause__, OmegaConfBaseException):
        if word.is_sweep_override():
            as_list = f", for a list write {key}=[{value}]" if word.is_choice_sweep() and "(" not in value else ""
            return f"several values; to run one after the other add -m{as_list}"
        if word.is_add():
            return f"{word.key_or_group} is there already; leave the + out: {str(word.input_line).removeprefix('+')}"
    said = _reason(error)
    if "is not a ListConfig" in said:
        above, _, name = word.key_or_group.rpartition(".")
        config = _composed(configs, config_name)
        parts = parts_of(OmegaConf.get_type(OmegaConf.select(config, above) if above else config), name)
        return f"a list is needed; give {key}=[{','.join([value] * parts)}]"
    if "is not a subclass of" in said:
        return f"{key} is a group of keys; give one of them, as {key}.<key>=<value> (--help shows them)"
    return said


def _reason(error: Exception) -> str:
    """Take what OmegaConf or Hydra says, without the paragraphs and the places in the schema that follow."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    said = re.split(r"\n\n|\n    full_key|\nSearch path", str(cause))[0]
    return " ".join(said.split()) or type(error).__name__


def _composed(configs: Path, config_name: str, words: Sequence[str] = ()) -> DictConfig:
    """Compose a configuration with the rest of a command line, or without it where that is wrong too."""
    with initialize_config_dir(str(configs), version_base="1.3"):
        try:
            return compose(config_name, list(words))
        except REFUSALS:
            return compose(config_name)


def _all_names(config: DictConfig) -> set[str]:
    return set(_names_within(OmegaConf.to_container(config)))


def _names_within(value: Any, above: str = "") -> Iterator[str]:  # noqa: ANN401 (whatever YAML holds)
    """List dotted names at any depth; those of the parts of a list of mappings with their numbers."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = dict(enumerate(value))
    for part, inner in value.items() if isinstance(value, dict) else ():
        yield f"{above}{part}"
        yield from _names_within(inner, f"{above}{part}.")


def _added(node: Any, above: str = "") -> Iterator[str]:  # noqa: ANN401 (any node of OmegaConf)
    """List the keys that a schema lacks, at any depth."""
    if not OmegaConf.is_config(node) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    schema = OmegaConf.get_type(node)
    for name in node if OmegaConf.is_dict(node) else range(len(node)):
        if is_dataclass(schema) and name not in schema.__dataclass_fields__:
            yield f"{above}{name}"
        else:
            yield from _added(node._get_node(name), f"{above}{name}.")


def _within(key: str, node: str) -> bool:
    return f"{key}.".startswith(f"{node}.")


def _dotted(key: object) -> str:
    """Write OmegaConf's ``a[0].b`` as ``a.0.b``; ``None`` as nothing."""
    return re.sub(r"\[(\w+)\]", r".\1", str(key or ""))
