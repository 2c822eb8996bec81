"""Images one after the other, for who looks at each of them once: never more than two chunks are in memory."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pandas as pd

from cxrnet.data.images import Images, ResizeRule, Size
from cxrnet.data.reading import OnError, check_on_error, one_ahead, read_into, report_bad, report_outliers

KEY = "on_error"  # of prediction, which alone reads so

# What was read of it, what is wrong with the others by row of the manifest, and files whose outliers were clipped.
_Chunk = tuple[Images, dict[int, str], list[str]]


def stream_images(
    manifest: pd.DataFrame, size: Size, resize_rule: ResizeRule, on_error: OnError, chunk: int, ahead: bool
) -> Iterator[tuple[pd.DataFrame, Images]]:
    """Read the images of a manifest chunk by chunk, each on all processors.

    Args:
        manifest: a manifest; ``path`` is read.
        size: ``(H, W)`` in pixels.
        resize_rule: of :func:`cxrnet.data.images.resize`.
        on_error: ``skip`` leaves files that give no image out and warns in the end. ``fail`` raises in the end, when
            all of them are known; after the first one nothing more is handed out.
        chunk: images that are read at a time.
        ahead: while one chunk is looked at, the next is read. For who works elsewhere than on the processors: there,
            threads of OpenMP wait for each other after every operation, and a reader that holds one up holds up all.

    Yields:
        Rows of the manifest, in order, and their images.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), or no image is left.
    """
    check_on_error(on_error, KEY)
    paths, bad, with_outliers = manifest["path"].tolist(), dict[int, str](), list[str]()

    def read(start: int, stopped: Callable[[], bool] = lambda: False) -> _Chunk:
        files = paths[start : start + chunk]
        array = np.empty((len(files), *size), np.uint8)
        facts, unread = read_into([array], range(len(files)), files, [(size, resize_rule)], stopped)
        clipped = [files[row] for row in np.flatnonzero(facts["outliers"])]
        return (
            Images(array, np.flatnonzero(facts["read"])),
            {start + row: kind for row, kind in unread.items()},
            clipped,
        )

    starts = range(0, len(paths), chunk)
    with one_ahead(read, starts) if ahead else nullcontext(map(read, starts)) as chunks:
        for start, (images, unread, clipped) in zip(starts, chunks, strict=True):
            bad |= unread
            with_outliers += clipped
            if len(images) and not (bad and on_error == "fail"):
                yield manifest.iloc[start + images.rows], images
    report_outliers(with_outliers)
    if bad:
        report_bad(bad, paths, on_error, KEY)
