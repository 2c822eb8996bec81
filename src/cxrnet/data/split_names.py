"""The names by which people call the splits of a data set, in folders and in tables."""

import re

READ_AS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SET = re.compile(r"[ _-]*(set|data|split|images?|folder)$")
_ALIKE = re.compile(
    r"(train(ing)?|val(id|idation)?|dev|test(ing)?|eval(uation)?|hold[ _-]?out|predict(ion)?)s?[\W_\d]*"
    r"((set|data|split|images?|folder|fold|part|copy|new|old|final)[\W_\d]*)*"
)


def split_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for a name of it, in any case, as ``Training`` or ``test_set``; else ``None``."""
    return READ_AS.get(_SET.sub("", name.strip().casefold()))


def looks_like_split(name: str) -> bool:
    """Whether a name is hardly that of a class, because it is like one of a split: ``train 2``, ``evaluation``."""
    return _ALIKE.fullmatch(name.strip().casefold()) is not None
