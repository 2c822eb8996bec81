"""A command line of which Hydra can't make a configuration: what is wrong with it, and what to type, in one line.

Hydra says it over several lines, in terms of search paths and grammars.
"""

import shlex
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cxrnet.cli.trainer_arguments import refusal
from cxrnet.core.config import flat

NO_MODE = "schedule.mode: leave it out; a loss is better when it is small, every other metric when it is large"

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra raises before a command's own work begins."""


def explain(error: Exception, configs: Path, config_name: str, arguments: Sequence[str]) -> str:
    """What is wrong with a command line, and what to type.

    Args:
        error: of :data:`REFUSALS`.
        configs: the folder that the configuration is composed of.
        config_name: the config that stands at its top.
        arguments: the command line that Hydra got.
    """
    overrides = list(_overrides(arguments))
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        return _no_option(error, configs, overrides)
    if isinstance(error, ValueError) and (group := _no_text(configs, overrides)) is not None:
        return f"{group.input_line}: there is no such option; {_choice(_options(configs, group.key_or_group))}"
    word = _word(error, overrides)
    if word is None:
        return f"{getattr(error, 'full_key', None) or 'config'}: {_reason(error)}"
    if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
        key = max(word.key_or_group, str(error.__cause__.full_key), key=len)  # data.foo of data={foo: 1}
        others = [override for override in overrides if override.key_or_group != word.key_or_group]
        return _no_key(key, word, _names(configs, config_name, others))
    return f"{word.input_line}: {_mistake(error, word)}"


def _overrides(arguments: Sequence[str]) -> Iterator[Override]:
    """What of a command line changes the configuration; what can't be read is left out."""
    parser = OverridesParser.create()
    for word in arguments:
        try:
            yield parser.parse_override(word)
        except HydraException:
            continue


def _unreadable(error: OverrideParseException) -> str:
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: not of the form key=value; --help shows the keys"
    if error.__cause__ is not None:  # a function of Hydra's, such as range(1,5), with unsuitable arguments
        return f"{error.override}: {' '.join(str(error.__cause__).split())}"
    escaped = value.replace('"', r"\"")
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"{error.override}: can't be read; close its brackets and quotes, or quote the whole value: {quoted}"


def _no_option(error: MissingConfigException, configs: Path, overrides: Sequence[Override]) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    choice = _choice(error.options or _options(configs, group))
    if any(override.key_or_group == group for override in overrides):
        return f"{group}={name}: there is no such option; {choice}"
    return f"config: {str(error).splitlines()[0].rstrip('.')}; {choice}"  # a config asks for it


def _no_text(configs: Path, overrides: Sequence[Override]) -> Override | None:
    """The choice of an option by what can't be its name, such as ``model=3``."""
    groups = (o for o in overrides if o.key_or_group and (configs / o.key_or_group).is_dir())
    return next((group for group in groups if not isinstance(group.value(), str | list)), None)


def _options(configs: Path, group: str) -> list[str]:
    return sorted(file.stem for file in (configs / group).glob("*.yaml"))


def _choice(options: Sequence[str]) -> str:
    return f"choose one of {', '.join(name for name in options if not name.startswith('_'))}"


def _word(error: Exception, overrides: Sequence[Override]) -> Override | None:
    """Which word of the command line an error is about."""
    key = getattr(error.__cause__, "full_key", None)
    if key:  # of a part of a word's key that is not there, or of something in its value
        found = [
            *(override for override in overrides if _within(override.key_or_group, key)),
            *(override for override in overrides if _within(key, override.key_or_group)),
        ]
    else:
        text = str(error)
        found = [
            *(override for override in overrides if str(override.input_line) in text),
            *(override for override in overrides if override.key_or_group and override.key_or_group in text),
        ]
    return next(iter(found), None)


def _within(key: str, node: str) -> bool:
    return f"{key}.".startswith(f"{node}.")


def _mistake(error: Exception, word: Override) -> str:
    """What is wrong with a word whose key there is."""
    key, _, value = str(word.input_line).partition("=")
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _reason(error)
    if word.is_sweep_override():
        as_list = f", for a list write {key}=[{value}]" if word.is_choice_sweep() and "(" not in value else ""
        return f"several values; to run one after the other add -m{as_list}"
    if word.is_add():
        return f"{word.key_or_group} is there already; leave the + out: {str(word.input_line).removeprefix('+')}"
    return _reason(error)


def _no_key(key: str, word: Override, names: Collection[str]) -> str:
    group, _, argument = key.partition(".")
    if group == "trainer" and group in names and (reason := refusal(argument)) is not None:
        return reason  # adding it would not do either
    if key == "schedule.mode":
        return NO_MODE
    others = alike(key, names)
    hint = f"did you mean {' or '.join(others)}?" if others else "--help shows all"
    adding = "" if group == "schedule" else f" (+{word.input_line} would add it)"  # a schedule takes no other keys
    return f"{key}: no such key; {hint}{adding}"


def alike(key: str, names: Collection[str]) -> list[str]:
    """Names with the same last part, else those that are spelled nearly so; three at most."""
    end = key.rpartition(".")[2]
    return sorted(name for name in names if name.rpartition(".")[2] == end)[:3] or get_close_matches(key, names, 1, 0.7)


def _names(configs: Path, config_name: str, others: Sequence[Override]) -> set[str]:
    """All keys that there are with the rest of the command line, or without it where that is wrong too."""
    words = [str(override.input_line) for override in others if not override.is_sweep_override()]
    with initialize_config_dir(str(configs), version_base="1.3"):
        try:
            config = compose(config_name, words)
        except REFUSALS:
            config = compose(config_name)
    leaves = [leaf.split(".") for leaf in flat(OmegaConf.to_container(config))]
    return {".".join(leaf[:depth]) for leaf in leaves for depth in range(1, len(leaf) + 1)}


def _reason(error: Exception) -> str:
    """What OmegaConf says in its first line, or Hydra in its first paragraph."""
    if isinstance(error.__cause__, OmegaConfBaseException):
        error = error.__cause__
    end = "\n" if isinstance(error, OmegaConfBaseException) else "\n\n"
    return " ".join(str(error).partition(end)[0].split()) or type(error).__name__
