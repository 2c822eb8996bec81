"""Images one after the other, for who looks at each of them once: never more than two chunks are in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cxrnet.data.images import Images, ResizeRule, Size
from cxrnet.data.reading import OnError, check_on_error, read_into, report_bad


def stream_images(
    manifest: pd.DataFrame, size: Size, resize_rule: ResizeRule, on_error: OnError, chunk: int
) -> Iterator[tuple[pd.DataFrame, Images]]:
    """Read the images of a manifest chunk by chunk; while one is looked at, the next is read.

    Args:
        manifest: a manifest; ``path`` is read.
        size: ``(H, W)`` in pixels.
        resize_rule: of :func:`cxrnet.data.images.resize`.
        on_error: ``skip`` leaves files that give no image out and warns in the end. ``fail`` raises in the end, when
            all of them are known; after the first one nothing more is handed out.
        chunk: images that are read at a time.

    Yields:
        Rows of the manifest, in order, and their images.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), or no image is left.
    """
    check_on_error(on_error)
    paths, bad = manifest["path"].tolist(), dict[int, str]()

    def read(start: int) -> tuple[Images, dict[int, str]]:
        files = paths[start : start + chunk]
        array = np.empty((len(files), *size), np.uint8)
        facts, unread = read_into([array], range(len(files)), files, [(size, resize_rule)])
        return Images(array, np.flatnonzero(facts["read"])), {start + row: kind for row, kind in unread.items()}

    with ThreadPoolExecutor(1) as ahead:
        reading = ahead.submit(read, 0)
        for start in range(0, len(paths), chunk):
            images, unread = reading.result()
            reading = ahead.submit(read, start + chunk)
            bad |= unread
            if len(images) and not (bad and on_error == "fail"):
                yield manifest.iloc[start + images.rows], images
    if bad:
        report_bad(bad, paths, on_error)
