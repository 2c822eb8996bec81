"""Download a public data set: ``python scripts/download.py covid19_image``.

It comes to where its option looks for it, ``data/<name>``, or to ``--root``. The two of Kaggle need
``pip install "cxrnet[download]"`` and, if Kaggle asks for it, an account (KAGGLE_USERNAME and KAGGLE_KEY, or
``~/.kaggle/kaggle.json``); the one of GitHub needs git.

What is downloaded is read and counted before it gets its name, so that a folder of that name is complete. An
existing folder is never touched. The exit status is 2 where the data set can't be had; a line then says why and
how to get it by hand.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra.utils import instantiate

from cxrnet.cli.app import compose_config
from cxrnet.core.console import USER_ERROR
from cxrnet.data.sources import covid19_image, covid19_radiography
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Train

KAGGLE = "https://www.kaggle.com/datasets/"
GITHUB = "https://github.com/ieee8023/covid-chestxray-dataset"
# What the default rule of data=covid_chestxray finds in the state of 22 June 2020 at least; the collection grew since.
COVID_CHESTXRAY_IMAGES = 495


@dataclass(frozen=True)
class Dataset:
    """Origin of a data set and the number of images that it must hold.

    Attributes:
        page: where a person finds it.
        fetch: puts it into a folder, which doesn't exist yet.
        column: of the manifest, whose values are counted.
        published: images by value of that column.
        grows: whether more than the published images are as good.
    """

    page: str
    fetch: Callable[[Path], None]
    column: str
    published: dict[str, int]
    grows: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Download what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description="Download a public data set and count its images.")
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("--root", type=Path, help="where to put it; data/<dataset> if not given")
    chosen = parser.parse_args(arguments)
    dataset, root = DATASETS[chosen.dataset], chosen.root or Path("data") / chosen.dataset
    try:
        counts = download(chosen.dataset, dataset, root)
    except CxrnetError as error:
        print(f"error: {chosen.dataset}: {error}", file=sys.stderr)
        print(f"by hand: get it from {dataset.page} and put it at '{root}' as data/README.md shows", file=sys.stderr)
        return USER_ERROR
    print(f"{root}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    print(f"python -m cxrnet.train data={chosen.dataset} data.root={root}")
    return 0


def download(name: str, dataset: Dataset, root: Path) -> dict[str, int]:
    """Fetch a data set into a folder beside ``root``, count it there, and give it its name.

    Returns:
        Images by value of the data set's column.

    Raises:
        CxrnetError: ``root`` exists, the data set can't be had, or it isn't complete; ``root`` is then as before.
    """
    if root.exists():
        raise CxrnetError(f"'{root}' exists and is left as it is; remove it first, or give another --root")
    print(f"downloading {dataset.page} to '{root}'", flush=True)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
            fetched = Path(scratch) / root.name
            dataset.fetch(fetched)
            counts = count(name, dataset, fetched)
            fetched.rename(root)
    except OSError as error:
        raise CxrnetError(f"'{root}' can't be written ({error})") from error
    return counts


def count(name: str, dataset: Dataset, root: Path) -> dict[str, int]:
    """Read a data set as ``data=<name>`` does and compare it with what is published.

    Raises:
        CxrnetError: the reader finds a fault, or the numbers of images differ.
    """
    config = compose_config(Train, [f"data={name}"])
    config.data.root = str(root)
    manifest = instantiate(config.data.manifest)()
    counts = {str(value): int(images) for value, images in manifest[dataset.column].value_counts().items()}
    for value, images in dataset.published.items():
        found = counts.get(value, 0)
        if found < images or (found > images and not dataset.grows):
            raise CxrnetError(f"{found} images of {value} came but {images} are published; nothing was kept")
    return counts


def from_kaggle(handle: str, folder: Path) -> None:
    """Download a data set of Kaggle.

    Raises:
        CxrnetError: kagglehub isn't there, or it fails.
    """
    try:
        import kagglehub  # an extra
    except ImportError as error:
        raise CxrnetError('kagglehub is not installed; run pip install "cxrnet[download]"') from error
    try:
        kagglehub.dataset_download(handle, output_dir=str(folder))
    except Exception as error:  # anything from no network to no credentials, in classes of several libraries
        raise CxrnetError(
            f"Kaggle did not give {handle} ({_first_line(str(error)) or type(error).__name__})"
        ) from error


def from_git(address: str, folder: Path) -> None:
    """Clone the newest state of a repository.

    Raises:
        CxrnetError: git isn't there, or it fails.
    """
    command = ["git", "clone", "--quiet", "--depth", "1", address, str(folder)]
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}  # a private or missing repository is an error, no question
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    except FileNotFoundError as error:
        raise CxrnetError("git is not installed; install it") from error
    if done.returncode:
        raise CxrnetError(f"git could not clone {address} ({_first_line(done.stderr)})")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


DATASETS = {
    "covid19_image": Dataset(
        KAGGLE + "pranavraikokte/covid19-image-dataset",
        partial(from_kaggle, "pranavraikokte/covid19-image-dataset"),
        "split",
        covid19_image.IMAGES,
    ),
    "covid19_radiography": Dataset(
        KAGGLE + "tawsifurrahman/covid19-radiography-database",
        partial(from_kaggle, "tawsifurrahman/covid19-radiography-database"),
        "label",
        covid19_radiography.PUBLISHED,
    ),
    "covid_chestxray": Dataset(
        GITHUB, partial(from_git, GITHUB), "source", {"covid_chestxray": COVID_CHESTXRAY_IMAGES}, grows=True
    ),
}

if __name__ == "__main__":
    sys.exit(main())
