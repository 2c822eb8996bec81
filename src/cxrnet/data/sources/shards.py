"""Shards that ``python -m cxrnet.shard`` has written, in a folder or on S3: the manifest that lies beside them."""

import logging
from io import BytesIO

import pandas as pd

from cxrnet.data.manifest import make_manifest
from cxrnet.data.shards.reading import MANIFEST, read_about, read_table
from cxrnet.data.shards.storage import resolved, storage_of

logger = logging.getLogger("cxrnet")


def shards(root: str) -> pd.DataFrame:
    """Read the manifest of shards; what is known to be wrong with the data is said again.

    Raises:
        CxrnetError: there are no shards, they are not finished, or their manifest is another one.
    """
    root = resolved(root)
    storage = storage_of(root)
    about = read_about(storage, root)
    table = pd.read_parquet(BytesIO(read_table(storage, root, about, MANIFEST)))
    table["path"] = f"{root}/" + table["path"]
    for source, issues in about["known_issues"].items():
        for issue in issues:
            logger.warning("known issue of %s: %s", source, issue)
    return make_manifest(table, root)
