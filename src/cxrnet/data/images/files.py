"""The search for images below a folder: what is read, what is left out, and why.

A file counts as an image by its ending, and where its name has none by its content. Left out and counted on the
console: masks (:mod:`cxrnet.data.images.masks`), what is hidden or belongs to an operating system or a network store
(``__MACOSX``, ``@eaDir``, thumbnails, deleted files), and files with another ending. Pipes and devices are never
opened; one that is called as an image is refused where images are read. Linked folders are followed; a folder is read
once, under its own name rather than that of a link to it.
"""

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cxrnet.data.images.masks import beside_images, is_mask_folder
from cxrnet.errors import CxrnetError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# Folders and files that systems, network stores and tools leave among images; whatever begins with a dot is hidden too.
SYSTEM = frozenset(
    {
        *("__macosx", "system volume information", "lost+found", "$recycle.bin", "recycler"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "thumbnails", "thumbs"),
    }
)
ENDING = re.compile(r"\.(?=\w*[^\W\d])\w{1,8}")  # with a letter: what stands after the last dot of "1.2.840" is none
BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP", re.DOTALL
)
NAMED = 3  # files that a line names

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Found:
    """What a search found, each sorted by the parts of its path.

    Attributes:
        images: files that are to be read.
        masks: files that are masks by their name or folder.
    """

    images: list[Path]
    masks: list[Path]


def find_images(folder: Path, key: str = "data.root") -> Found:
    """Search a folder and the folders below it, and say what is left out or read by its content.

    Args:
        folder: where to search.
        key: of the configuration, which named the folder; for messages.

    Raises:
        CxrnetError: a folder below can't be read, a link leads to a folder that holds it, or the name of an image is
            not UTF-8.
    """
    search = _Search(key)
    search.enter(str(folder), os.path.realpath(folder), masks=False)
    search.follow_links()
    images, masks = beside_images(search.images)
    masks += search.masks
    search.masks = masks
    for text in search.words():
        logger.warning("'%s': %s", folder, text)
    return Found(*([Path(path) for path in sorted(files, key=_parts)] for files in (images, masks)))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems and network stores leave among images."""
    return name.startswith(".") or name.casefold() in SYSTEM


def check_name(path: str, key: str) -> None:
    """See that a table can hold the path of a file.

    Raises:
        CxrnetError: it isn't UTF-8, as on disks and in archives of older systems.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        name = path.encode(errors="backslashreplace").decode()
        raise CxrnetError(f"{key}: the name of '{name}' is not UTF-8; rename it") from error


def _parts(path: str) -> list[str]:
    return path.split(os.sep)  # noqa: PTH206 (plain strings: far faster than pathlib)


class _Search:
    """One search; paths are plain strings, as there may be millions."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.images: list[str] = []
        self.masks: list[str] = []
        self.by_content: list[str] = []
        self.others = Counter[str]()  # by ending
        self.hidden = Counter[str]()  # images in hidden places, by name of the place
        self.links: list[tuple[str, bool]] = []  # to folders, and whether they are of masks
        self.again: list[str] = []  # links to what is read anyway
        self.dangling: list[str] = []
        self.entered: set[str] = set()  # real paths

    def enter(self, place: str, real: str, masks: bool) -> None:
        """Look at a folder and those below it.

        Args:
            place: as it is called.
            real: where it really is.
            masks: it is of masks.
        """
        if real in self.entered:
            return
        self.entered.add(real)
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except OSError as error:
            raise CxrnetError(
                f"{self.key}: the folder '{place}' can't be read ({error.strerror}); get the right to read it, "
                "or move it elsewhere"
            ) from error
        for entry in found:
            path = f"{place}{os.sep}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if is_hidden(entry.name):
                    self._count_hidden(path, entry.name)
                else:
                    self.enter(path, f"{real}{os.sep}{entry.name}", masks or is_mask_folder(entry.name))
            elif not entry.is_symlink() or (os.path.exists(path) and not os.path.isdir(path)):  # noqa: PTH110, PTH112
                self._add(path, entry.name, masks)
            elif is_hidden(entry.name):
                pass
            elif os.path.isdir(path):  # noqa: PTH112
                self.links.append((path, masks or is_mask_folder(entry.name)))
            else:
                self.dangling.append(path)

    def follow_links(self) -> None:
        """Look at linked folders, once all that is no link was looked at."""
        while self.links:
            links, self.links = sorted(self.links), []
            for path, masks in links:
                real, holder = os.path.realpath(path), os.path.realpath(os.path.dirname(path))  # noqa: PTH120
                if f"{holder}{os.sep}".startswith(f"{real}{os.sep}"):
                    raise CxrnetError(
                        f"{self.key}: the link '{path}' leads to a folder that holds it ('{real}'); remove the link"
                    )
                if real in self.entered:
                    self.again.append(path)
                self.enter(path, real, masks)

    def _add(self, path: str, name: str, masks: bool) -> None:
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if not ENDING.fullmatch(ending):
            ending = ""
        by_content = not ending and not is_hidden(name) and _begins_as_image(path)
        if not by_content and ending not in EXTENSIONS:
            if not is_hidden(name):
                self.others[ending] += 1
        elif is_hidden(name):
            self.hidden["hidden files"] += 1
        else:
            if not path.isascii():
                check_name(path, self.key)
            (self.masks if masks else self.images).append(path)
            if by_content:
                self.by_content.append(path)

    def _count_hidden(self, path: str, name: str) -> None:
        for _, _, names in os.walk(path):  # what can't be read there is passed over
            if images := sum(each.lower().endswith(EXTENSIONS) for each in names):
                self.hidden[name] += images

    def words(self) -> list[str]:
        """What the user must know."""
        others = [f"{count} {ending or 'without an ending'}" for ending, count in sorted(self.others.items())]
        places = ", ".join(sorted(self.hidden))
        hidden = f"{self.hidden.total()} hidden or system files ({places})" if self.hidden else ""
        masks = f"{len(self.masks)} masks" if self.masks else ""
        left_out = ", ".join(filter(None, (masks, hidden, *others)))
        return [
            *([f"left out: {left_out}"] if left_out else []),
            *_named("no ending, read by their content", self.by_content),
            *_named("links that lead nowhere, left out", self.dangling),
            *_named("links to folders that are read anyway, not followed", self.again),
        ]


def _named(what: str, paths: list[str]) -> list[str]:
    """One line on files, or none where there are none: how many they are, and the names of the first."""
    if not paths:
        return []
    first = ", ".join(f"'{path}'" for path in sorted(paths)[:NAMED])
    return [f"{what}: {len(paths)} ({first}{', ...' if len(paths) > NAMED else ''})"]


def _begins_as_image(path: str) -> bool:
    if not os.path.isfile(path):  # noqa: PTH113
        return False  # a pipe, which would be waited for, or a device
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return BEGINNINGS.match(file.read(16)) is not None
    except OSError:
        return True  # what can't be read is told as such when it is to be decoded
