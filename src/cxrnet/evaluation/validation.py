"""What is chosen by looking at labels is chosen on validation images, and on no others."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import label_codes


def validation_codes(predictions: pd.DataFrame, what: str) -> npt.NDArray[np.intp]:
    """Return the labels of validation images as ``(N,)`` indices into the classes.

    Args:
        predictions: the rows of the split ``val``; rows of a table without splits count as such.
        what: what is to be chosen, a config key, for the error messages.

    Raises:
        CxrnetError: there are no rows, rows of another split, or labels are missing.
    """
    if len(predictions) == 0:
        raise CxrnetError(f"{what}: there are no validation images to choose it on; give the val split some")
    others = sorted(set(predictions["split"].dropna()) - {"val"})
    if others:
        count = int(predictions["split"].isin(others).sum())
        raise CxrnetError(
            f"{what}: {count} of {len(predictions)} images are of split {', '.join(others)}; "
            "it is chosen on val alone, give only those rows"
        )
    return label_codes(predictions)
