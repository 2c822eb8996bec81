"""COVID-19 Image Dataset: 3 Way Classification (COVID-19, viral pneumonia, normal).

Origin: Kaggle, by ``pranavraikokte``, https://www.kaggle.com/datasets/pranavraikokte/covid19-image-dataset. At least 89
of the COVID-19 images are those of the "COVID-19 image data collection" (J. P. Cohen et al., arXiv:2006.11988, 2020);
cite it too.
Images: 317 frontal radiographs, JPEG or PNG, of different sizes, some in colour; as published, Covid 111 in train and
26 in test, Normal 70 and 20, Viral Pneumonia 70 and 20. No patients, no views. The same file name (``01.jpeg``) occurs
in two classes.
Layout: ``Covid19-dataset/{train,test}/{Covid,Normal,Viral Pneumonia}/``.
Licence: the copy from which the counts are taken states none; read the Kaggle page before passing the images on.
Known issues: ``conf/data/_covid19_image_issues.yaml``, from where reports and model cards state them.
"""

import logging
from pathlib import Path

import pandas as pd

from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError

CLASSES = ("Covid", "Normal", "Viral Pneumonia")
IMAGES = {"train": 251, "test": 66}

logger = logging.getLogger("cxrnet")


def covid19_image(root: str | Path) -> pd.DataFrame:
    """Read the data set with its published split.

    ``root`` is the folder that holds ``Covid19-dataset``, or that folder itself; ``image_id`` is the path below it, the
    labels are as the folders are called.

    Raises:
        CxrnetError: the data set is not there, or not in its published layout.
    """
    places = (Path(root) / "Covid19-dataset", Path(root))
    found = [place for place in places if all((place / part).is_dir() for part in IMAGES)]
    if not found:
        looked = " and ".join(f"'{place.as_posix()}'" for place in places)
        raise CxrnetError(
            f"data.root: the COVID-19 Image Dataset is not at '{root}' (no train/ and test/ in {looked}); "
            "unpack Covid19-dataset/ from Kaggle there, see data/README.md"
        )
    manifest = folder(found[0]).assign(source="covid19_image").astype({"source": "string"})
    if other := sorted(set(manifest["label"]) ^ set(CLASSES)):
        raise CxrnetError(
            f"data.root: '{found[0]}' is not the COVID-19 Image Dataset ({', '.join(CLASSES)}): class "
            f"'{other[0]}' is missing or too many; use data=folder for a data set of your own"
        )
    counts = {split: int((manifest["split"] == split).sum()) for split in IMAGES}
    if counts != IMAGES:
        logger.warning("covid19_image: %s images found, %s published: is the copy complete?", counts, IMAGES)
    return manifest
