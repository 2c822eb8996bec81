"""Search for duplicates: one radiograph under two names, recognised by its content, also after it was changed."""

from cxrnet.data.duplicates.evidence import KINDS, SAME_FILE
from cxrnet.data.duplicates.pairs import (
    SEARCH_SIZE,
    Found,
    find_duplicates,
    group_duplicates,
    rules,
    search,
)

__all__ = [
    "KINDS",
    "SAME_FILE",
    "SEARCH_SIZE",
    "Found",
    "find_duplicates",
    "group_duplicates",
    "rules",
    "search",
]
