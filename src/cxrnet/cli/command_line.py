"""A typed command line, translated for Hydra: home folders, and mappings that replace the default."""

import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from cxrnet.core.config import OWN_NAMES, own_mappings

# At the beginning of a value, of a part of a list or of one of several values; quoted or not.
HOME = re.compile(r"(?<=[=,\[\s:\"'])~[\w.-]*(?=[/,\]}\"'\s]|$)")


def typed_words(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra gets.

    ``~/xrays`` and ``~name/xrays`` become the home folder's path: a shell leaves them alone behind a dotted key, and
    Hydra can't read them. A mapping whose keys are the user's own names (``OWN_NAMES`` of :mod:`cxrnet.core.config`)
    replaces the default instead of being merged into it: the word ``<key>=null`` takes the default away, and
    ``+<key>={...}`` follows.
    """
    words: list[str] = []
    for word in arguments:
        key, equals, value = word.partition("=")
        expanded = f"{key}{equals}{HOME.sub(_expanded, f'={value}')[1:]}" if "~" in value else word
        replaced = list(_replaced(expanded))
        words += [f"{name}=null" for name in replaced]
        # With the +, because of two words with one key a sweep drops the first.
        words.append(f"+{expanded}" if key in replaced else expanded)
    return words


def _expanded(match: re.Match[str]) -> str:
    try:
        return str(Path(match[0]).expanduser())
    except RuntimeError:  # there is no such user
        return match[0]


def _replaced(word: str) -> Iterator[str]:
    """List the keys of the mappings in a word that replace the default; none of ``+key={...}``, which adds to it."""
    if "{" not in word or word.startswith("-"):
        return
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except HydraException:  # Hydra tells it
        return
    if override.type != OverrideType.CHANGE:
        return
    key = override.key_or_group
    if override.is_sweep_override():
        if key.rpartition(".")[2] in OWN_NAMES:
            yield key
        return
    value = override.value()
    if isinstance(value, dict):
        yield from own_mappings({key: value})
