"""Which files count as images when a folder is searched; whether they are, their content tells later."""

from pathlib import Path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def image_files(folder: Path) -> list[Path]:
    """Every file below a folder that is named like an image, sorted; hidden files and folders are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and not any(is_hidden(part) for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def is_hidden(name: str) -> bool:
    """Files of the operating system, such as ``.DS_Store`` and the ``__MACOSX`` folder of an archive."""
    return name.startswith(".") or name == "__MACOSX"
