"""``--help`` of a command: what it does, its options, and all keys with their values and what is said of them."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from cxrnet.cli.hydra_errors import options

WIDTH = 116


def help_text(configs: Path, config_name: str, words: Sequence[str]) -> str:
    """Describe a command with the values that a command line would give it.

    Args:
        configs: the folder that the configuration is composed of.
        config_name: the config that stands at its top.
        words: what is typed behind the command.
    """
    with initialize_config_dir(str(configs), version_base="1.3"):
        config = compose(config_name, list(words), return_hydra_config=True)
    groups = [group for group in config.hydra.runtime.choices if (configs / group).is_dir() and "/" not in group]
    parts = [config.hydra.help.header]
    if groups:
        parts.append("\n".join(["Options (group=option):", "", *_choices(configs, groups)]))
    with open_dict(config):
        del config["hydra"]
    parts.append("\n".join(["Values that can be changed (key=value):", "", *_keys(config)]))
    return "\n\n".join(parts)


def _choices(configs: Path, groups: Sequence[str]) -> Iterator[str]:
    for group in sorted(groups):
        line = f"{group}: {', '.join(options(configs, group))}"
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _keys(node: Any, indent: str = "") -> Iterator[str]:  # noqa: ANN401 (a node of OmegaConf)
    """Yield lines of YAML, with comments on the keys of data classes."""
    said = _attributes(OmegaConf.get_type(node))
    for name in node:
        if name in said:
            mark = f"{indent}# "
            yield from textwrap.wrap(said[name], WIDTH, initial_indent=mark, subsequent_indent=mark)
        child = node._get_node(name)
        if OmegaConf.is_dict(child) and is_dataclass(OmegaConf.get_type(child)):
            yield f"{indent}{name}:"
            yield from _keys(child, f"{indent}  ")
        else:
            yield from textwrap.indent(OmegaConf.to_yaml(OmegaConf.masked_copy(node, [name])), indent).splitlines()


def _attributes(schema: Any) -> dict[str, str]:  # noqa: ANN401 (what OmegaConf says of a node)
    """Read what the docstrings of a data class, and of those it inherits from, say of its fields."""
    said = {}
    for each in reversed(getattr(schema, "settings", object).__mro__):
        text = (inspect.cleandoc(each.__doc__ or "")).partition("Attributes:\n")[2]
        for name, words in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
            said[name] = re.sub(r":\w+:`([^`]*)`", r"\1", " ".join(words.split())).replace("``", "")
    return said
