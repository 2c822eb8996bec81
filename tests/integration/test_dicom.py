"""Through all commands that read DICOM files, nothing that names a person reaches a file, MLflow or the console."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

SECRETS = ("Zwiebelfisch", "Kennwort4711", "19520304", "Spital Nirgendwo", "Dr. Unbekannt", "ACC998877")


def dicom(pixels: np.ndarray) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CR", "MONOCHROME2", 1
    data.PatientName, data.PatientID, data.PatientBirthDate = f"{SECRETS[0]}^Anna", SECRETS[1], SECRETS[2]
    data.InstitutionName, data.ReferringPhysicianName, data.AccessionNumber = SECRETS[3:]
    data.PatientSex, data.PatientAge, data.ViewPosition = "F", "070Y", "PA"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, pixels.tobytes()
    file = BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.slow
def test_nobody_is_named_by_prepare_train_or_predict(draw, command, tmp_path):
    root = draw(tmp_path / "drawn", images=12)
    for file in sorted(root.rglob("*.png")):  # without endings, as scanners write them
        place = tmp_path / "xrays" / file.parent.name / file.stem
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            place.write_bytes(dicom(np.asarray(image.convert("L"))))
    broken = tmp_path / "odd" / "cut off"
    broken.parent.mkdir()
    broken.write_bytes(place.read_bytes()[:900])
    (tmp_path / "odd" / "whole").write_bytes(place.read_bytes())
    data = ("data=folder", "data.root=xrays", "data.size=[32,32]", "data.manifest.header=true")
    network = ("model=custom_cnn", "model.weights=none", "trainer=debug", "hydra.run.dir=run")
    said = []
    for words, status in (
        (("prepare", *data), 0),
        (("train", *data, *network), 0),
        (("predict", "bundle=run", "input=odd", "gate=false"), 1),
    ):
        done = command(tmp_path, *words)
        assert done.returncode == status, done.stderr
        said.append(done.stdout + done.stderr)
    assert "odd/whole\t" in said[-1]
    assert "odd/cut off" in said[-1]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not {"xrays", "odd"} & set(path.parts)]
    assert len(written) > 20
    for secret in SECRETS:
        assert not [path for path in written if secret.encode() in path.read_bytes()]
        assert not [text for text in said if secret in text]
