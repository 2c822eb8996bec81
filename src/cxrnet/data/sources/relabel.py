"""The labels of one data set in the classes of a model that was trained on another."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cxrnet.errors import CxrnetError


def relabel(
    manifest: pd.DataFrame, classes: Sequence[str], labels: Mapping[str, str | None], where: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Give every image the name that the model has for its class.

    Args:
        manifest: a manifest, with the data set's own labels.
        classes: of the model.
        labels: class of the model by the data set's own label; ``None`` leaves its images out. A label that is a class
            of the model stands for itself.
        where: the key of ``labels`` in the configuration, for the error messages.

    Returns:
        The manifest with new labels, and the number of images left out by their old label.

    Raises:
        CxrnetError: a label is neither a class nor in ``labels``, or ``labels`` names what there isn't.
    """
    own = sorted(set(manifest["label"]))
    if unknown := [label for label in labels if label not in own]:
        raise CxrnetError(f"{where}: '{unknown[0]}' is no label of the data, which are {', '.join(own)}")
    if unknown := [name for name in labels.values() if name is not None and name not in classes]:
        raise CxrnetError(f"{where}: '{unknown[0]}' is no class of the bundle, which are {', '.join(classes)}")
    if unmapped := [label for label in own if label not in labels and label not in classes]:
        example = ", ".join(f"{label}: ..." for label in unmapped)
        raise CxrnetError(
            f"{where}: no class of the bundle ({', '.join(classes)}) for the label {', '.join(unmapped)}; give "
            f"{where}={{{example}}}, with a class or null, which leaves the images out"
        )
    mapping = {label: labels.get(label, label) for label in own}
    named = manifest["label"].map(lambda label: mapping[label] is not None).astype(bool)
    left_out = manifest.loc[~named, "label"].value_counts().sort_index()
    rows = manifest[named].reset_index(drop=True)
    kept = rows.assign(label=rows["label"].map(mapping).astype("string"))
    return kept, {str(label): int(count) for label, count in left_out.items()}
