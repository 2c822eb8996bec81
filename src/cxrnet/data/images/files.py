"""Search for images below a folder: what is read, what is left out, and which masks belong to which image.

A file counts as an image by its ending, and where its name has none by its content. Left out and counted on the
console: masks, what is hidden or belongs to an operating system or a network store (``__MACOSX``, ``@eaDir``,
thumbnails, deleted files), and files with another ending. Pipes and devices are never opened; one with the name of an
image is refused where images are read. Linked folders are followed; a folder is read once, under its own name rather
than that of a link to it.
"""

# Plain strings: far faster than pathlib, and there may be millions of paths.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH119, PTH120, PTH122, PTH123, PTH206

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrnet.data.images.dicom import BEGINNING, is_dicom
from cxrnet.errors import CxrnetError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".dcm", ".dicom")

# Folders and files that systems, network stores and tools leave among images; whatever begins with a dot is hidden too.
_SYSTEM = frozenset(
    {
        *("__macosx", "system volume information", "lost+found", "$recycle.bin", "recycler"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("dicomdir", "thumbs.db", "ehthumbs.db", "desktop.ini", "thumbnails", "thumbs"),
    }
)
_ENDING = re.compile(r"\.(?=\w*[^\W\d])\w{1,8}")  # with a letter: what stands after the last dot of "1.2.840" is none
_BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP", re.DOTALL
)
_PICTURE = "image|img|picture|photo|png|jpg|jpeg|original"
PICTURES = re.compile(rf"({_PICTURE})s?", re.IGNORECASE)  # a folder of this name is no class
_RADIOGRAPHS = re.compile(rf"({_PICTURE}|radiograph|cxr|x[ _-]?ray)s?", re.IGNORECASE)  # may stand beside "masks"
_MASKS = re.compile(r"(mask|segmentation|annotation|contour)s?(?![a-z])")
_MASK_HINT = re.compile(r"mask|seg", re.IGNORECASE)
_MASK = re.compile(r"(?:masks?[ ._-]+)?(.+?)(?:[ ._-]+lungs?)?(?:[ ._-]+(?:masks?|seg|segmentation))?", re.IGNORECASE)
_NAMED = 3  # files that a line names

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Found:
    """Images to be read, and files that are masks by their name or folder; each sorted by the parts of its path."""

    images: list[Path]
    masks: list[Path]


def find_images(folder: Path, key: str = "data.root") -> Found:
    """Search a folder and the folders below it, and say what is left out or read by its content.

    ``key`` of the configuration named the folder.

    Raises:
        CxrnetError: a folder below can't be read, a link leads to a folder that holds it, or the name of an image is
            not UTF-8.
    """
    search = _Search(key)
    search.enter(str(folder), os.path.realpath(folder), masks=False)
    search.follow_links()
    # Masks that lie in one folder with their images: x_mask.png beside x.png.
    stems = {os.path.splitext(path)[0] for path in search.images}
    named = {path: _image_of(path) for path in search.images if _MASK_HINT.search(os.path.basename(path))}
    beside = {path for path, image in named.items() if image in stems and image != os.path.splitext(path)[0]}
    images, masks = [path for path in search.images if path not in beside], [*search.masks, *beside]
    left_out = [f"{len(masks)} masks"] if masks else []
    if search.hidden:
        left_out += [f"{search.hidden.total()} hidden or system files ({', '.join(sorted(search.hidden))})"]
    left_out += [f"{count} {ending or 'without an ending'}" for ending, count in sorted(search.others.items())]
    if left_out:
        logger.warning("'%s': left out: %s", folder, ", ".join(left_out))
    for what, paths in (
        ("no ending, read by their content", search.by_content),
        ("links that lead nowhere, left out", search.dangling),
        ("links to folders that are read anyway, not followed", search.again),
    ):
        if paths:
            first = ", ".join(f"'{path}'" for path in sorted(paths)[:_NAMED])
            more = ", ..." if len(paths) > _NAMED else ""
            logger.warning("'%s': %s: %d (%s%s)", folder, what, len(paths), first, more)
    return Found(
        *([Path(path) for path in sorted(each, key=lambda path: path.split(os.sep))] for each in (images, masks))
    )


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or one that systems and network stores leave among images."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_mask_folder(name: str) -> bool:
    """Tell a folder of masks by its name: ``masks``, ``lung_masks``, ``Segmentation``, ``annotations``."""
    return _MASKS.search(name.casefold()) is not None


def check_name(path: str, key: str) -> None:
    """Refuse a path that a table can't hold: one that isn't UTF-8, as on disks and in archives of older systems."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        name = path.encode(errors="backslashreplace").decode()
        raise CxrnetError(f"{key}: the name of '{name}' is not UTF-8; rename it") from error


def masks_of(images: Sequence[Path], masks: Sequence[Path], top: Path) -> list[str | None]:
    """Find the mask of each image, ``None`` where none or several fit; all lie below ``top``.

    The mask of ``CLASS/images/x.png`` or ``CLASS/x.png`` is ``CLASS/masks/x.png``, where the name may say ``mask`` too;
    where there are masks of lungs among several, it is that of the lungs.
    """
    if not masks:
        return [None] * len(images)
    places: dict[tuple[str, ...], list[str]] = {}
    for mask in masks:
        *folders, last = mask.relative_to(top).parts
        depth = next((i for i, part in enumerate(folders) if is_mask_folder(part)), len(folders))
        places.setdefault((*folders[:depth], *folders[depth + 1 :], Path(_image_of(last)).name), []).append(str(mask))
    found: list[str | None] = []
    for image in images:
        *folders, last = image.relative_to(top).parts
        # A folder of images may stand where that of the masks does.
        swapped = [[*folders[:i], *folders[i + 1 :]] for i, name in enumerate(folders) if _RADIOGRAPHS.fullmatch(name)]
        candidates = dict.fromkeys((*parts, image.stem) for parts in (folders, *swapped))
        fitting = [mask for place in candidates for mask in places.get(place, [])]
        if len(fitting) > 1:
            fitting = [mask for mask in fitting if "lung" in os.path.relpath(mask, top).casefold()]
        found.append(fitting[0] if len(fitting) == 1 else None)
    return found


def _image_of(mask: str) -> str:
    """Return the path of the image that a mask belongs to by its name, without an ending."""
    folder, name = os.path.split(mask)
    match = _MASK.fullmatch(os.path.splitext(name)[0])
    return os.path.join(folder, match[1] if match else name)


class _Search:
    """One search; paths are plain strings."""

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
        """Look at a folder, whose real path is ``real``, and those below it; ``masks`` if it is of masks."""
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
            path, name = f"{place}{os.sep}{entry.name}", entry.name
            if entry.is_dir(follow_symlinks=False):
                if not is_hidden(name):
                    self.enter(path, f"{real}{os.sep}{name}", masks or is_mask_folder(name))
                    continue
                for _, _, names in os.walk(path):  # what can't be read there is passed over
                    if images := sum(each.lower().endswith(EXTENSIONS) for each in names):
                        self.hidden[name] += images
            elif not entry.is_symlink() or (os.path.exists(path) and not os.path.isdir(path)):
                self._add(path, name, masks)
            elif is_hidden(name):
                pass
            elif os.path.isdir(path):
                self.links.append((path, masks or is_mask_folder(name)))
            else:
                self.dangling.append(path)

    def follow_links(self) -> None:
        """Look at linked folders, once all that is no link was looked at."""
        while self.links:
            links, self.links = sorted(self.links), []
            for path, masks in links:
                real, holder = os.path.realpath(path), os.path.realpath(os.path.dirname(path))
                if f"{holder}{os.sep}".startswith(f"{real}{os.sep}"):
                    raise CxrnetError(
                        f"{self.key}: the link '{path}' leads to a folder that holds it ('{real}'); remove the link"
                    )
                if real in self.entered:
                    self.again.append(path)
                self.enter(path, real, masks)

    def _add(self, path: str, name: str, masks: bool) -> None:
        ending = os.path.splitext(name)[1].lower()
        if not _ENDING.fullmatch(ending):
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


def _begins_as_image(path: str) -> bool:
    if not os.path.isfile(path):
        return False  # a pipe, which would be waited for, or a device
    try:
        with open(path, "rb") as file:
            beginning = file.read(BEGINNING)
            return _BEGINNINGS.match(beginning) is not None or is_dicom(beginning)
    except OSError:
        return True  # what can't be read is told as such when it is to be decoded
