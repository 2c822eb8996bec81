"""DICOM: every way in which radiographs are stored gives the pixels that its PNG gives, and no name ever comes out."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from cxrnet.data.acquisition import read_headers
from cxrnet.data.images.decode import ImageError, read_image
from cxrnet.data.images.dicom import header_facts, is_dicom
from cxrnet.data.sources.folder import folder

GREY = (np.add.outer(np.arange(24) * 5, np.arange(32) * 4)).astype(np.uint8)
TWELVE = (GREY.astype(np.uint16) * 17) % 4096
NAME = "Mustermann^Erika"


def dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> bytes:
    """Write a computed radiograph, with identity fields."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.PatientName, data.PatientID, data.PatientBirthDate = "CR", NAME, "4711", "19500101"
    data.InstitutionName, data.PatientSex, data.PatientAge, data.ViewPosition = "Charite", "F", "070Y", "PA"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = elements.pop("BitsStored", data.BitsAllocated)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(data, name, value)
    big = syntax == ExplicitVRBigEndian
    raw = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    file = BytesIO()
    if syntax in (RLELossless, JPEG2000Lossless):
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(syntax, generate_instance_uid=False)
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
def test_a_dicom_and_the_png_of_the_same_values_have_the_same_pixels(syntax: str) -> None:
    for pixels, bits in ((GREY, 8), (TWELVE, 12), (TWELVE * 16, 16)):
        same = read_image(png(pixels), "x.png")
        np.testing.assert_array_equal(read_image(dicom(pixels, syntax, BitsStored=bits), "x.dcm"), same)


def test_lossless_compression_changes_nothing() -> None:
    large = np.tile(TWELVE, (3, 3))
    same = read_image(png(large), "x.png")
    np.testing.assert_array_equal(read_image(dicom(large, JPEG2000Lossless, BitsStored=12), "x"), same)


def test_pydicoms_own_files_of_each_compression_are_read() -> None:
    """They are secondary captures, or of other modalities, which are refused before their pixels are looked at."""
    for name in (
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ):
        data = Path(get_testdata_file(name, download=False)).read_bytes()
        assert read_image(data, name).std() > 10, name
    for name, kind in (
        ("CT_small.dcm", "no radiograph"),
        ("MR_small.dcm", "no radiograph"),
        ("rtplan.dcm", "no radiograph"),
    ):
        with pytest.raises(ImageError) as error:
            read_image(Path(get_testdata_file(name, download=False)).read_bytes(), name)
        assert error.value.kind == kind


def test_monochrome1_is_turned_and_padding_is_black() -> None:
    inverted = dicom(255 - GREY, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(inverted, "x"), GREY)
    both = dicom(255 - GREY, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(read_image(both, "x"), GREY)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        padded = TWELVE.copy()
        padded[:, :4] = 4095
        read = read_image(
            dicom(padded, PixelPaddingValue=4095, PhotometricInterpretation=photometric, BitsStored=12), "x"
        )
        assert (read[:, :4] == 0).all()
        inside = read_image(png(TWELVE[:, 4:]), "x")
        np.testing.assert_array_equal(read[:, 4:], inside if photometric[-1] == "2" else 255 - inside)


def test_a_range_of_padding_may_end_at_zero() -> None:
    values = np.array([[-2000, -1000, 0, 100, 200]], np.int16)
    read = read_image(dicom(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=0), "x")
    assert read.tolist() == [[0, 0, 0, 0, 255]]


def test_windows_rescale_and_tables_are_applied() -> None:
    values = np.array([[0, 100, 200, 300, 400]], np.uint16)
    linear = read_image(dicom(values, WindowCenter=200.5, WindowWidth=201), "x")
    assert linear.tolist() == [[0, 0, 128, 255, 255]]  # PS3.3 C.11.2.1.2: from 100 to 300
    several = dicom(values, WindowCenter=[200.5, 50], WindowWidth=[201, 10])
    np.testing.assert_array_equal(read_image(several, "x"), linear)
    exact = read_image(dicom(values, WindowCenter=200, WindowWidth=200, VOILUTFunction="LINEAR_EXACT"), "x")
    assert exact.tolist() == [[0, 0, 128, 255, 255]]
    sigmoid = read_image(dicom(values, WindowCenter=200, WindowWidth=200, VOILUTFunction="SIGMOID"), "x")
    assert sigmoid.tolist() == [[5, 30, 128, 225, 250]]
    rescaled = dicom(values, RescaleSlope=2, RescaleIntercept=-200, WindowCenter=200.5, WindowWidth=201)
    assert read_image(rescaled, "x").tolist() == [[0, 0, 128, 255, 255]]
    signed = dicom(values.astype(np.int16) - 200, WindowCenter=0.5, WindowWidth=201)
    np.testing.assert_array_equal(read_image(signed, "x"), linear)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 1, 8], np.array([0, 10, 20, 255], np.uint16).tobytes()
    looked_up = dicom(np.array([[0, 1, 2, 3, 4, 9]], np.uint16), VOILUTSequence=[table])
    assert read_image(looked_up, "x").tolist() == [[0, 0, 10, 20, 255, 255]]


def test_what_is_no_radiograph_of_one_frame_is_refused_in_a_line() -> None:
    for said, elements in {
        "no radiograph \\(modality CT\\)": {"Modality": "CT"},
        "several frames": {"NumberOfFrames": 2},
        "cut off or damaged": {"WindowCenter": 1, "WindowWidth": 0},
        "no radiograph \\(unknown modality\\)": {"Modality": ""},
    }.items():
        with pytest.raises(ImageError, match=said):
            read_image(dicom(GREY, **elements), "x.dcm")
    capture = dicom(GREY, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    np.testing.assert_array_equal(read_image(capture, "x"), GREY)
    whole = dicom(TWELVE)
    with pytest.raises(ImageError, match="million pixels"):
        read_image(dicom(GREY, Rows=40000, Columns=40000), "x.dcm")
    for end in (140, 300, len(whole) // 2, len(whole) - 10):
        with pytest.raises(ImageError, match=r"cut off|unknown modality"):
            read_image(whole[:end], "x.dcm")


def test_a_damaged_file_gives_an_image_or_a_line() -> None:
    random, whole = np.random.default_rng(0), dicom(TWELVE, RLELossless)
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(256)
        said = ""
        try:
            read_image(bytes(data), "x")
        except ImageError as error:
            said = str(error)
        assert NAME not in said


def test_files_without_preamble_are_known_by_their_content() -> None:
    whole = dicom(GREY)
    bare = whole[132:]
    assert is_dicom(whole[:132])
    assert is_dicom(bare[:132])
    np.testing.assert_array_equal(read_image(bare, "x"), GREY)
    for other in (png(GREY), b"BM" + bytes(200), b"II*\0" + bytes(200), bytes(200), b"II\x02\0\x08\0\0\0" * 30):
        assert not is_dicom(other[:132])


def test_a_folder_of_dicom_files_is_a_data_set_that_names_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.dcm").write_bytes(dicom(GREY))
        (tmp_path / label / "1.2.840.113619").write_bytes(dicom(GREY))
    (tmp_path / "DICOMDIR").write_bytes(dicom(GREY))
    plain, table = folder(tmp_path), folder(tmp_path, header=True)
    assert plain["image_id"].tolist() == ["a/1.2.840.113619", "a/1.dcm", "b/1.2.840.113619", "b/1.dcm"]
    assert plain["view"].isna().all()
    assert "age" not in plain
    assert read_headers(table)[["format", "mode"]].drop_duplicates().to_numpy().tolist() == [["DICOM", "L"]]
    assert table[["view", "sex", "age"]].drop_duplicates().to_numpy().tolist() == [["PA", "F", 70]]
    said = table.to_csv() + "".join(capfd.readouterr())
    assert not [word for word in ("Mustermann", "Erika", "4711", "1950", "Charite") if word in said]


def test_ages_are_years_and_free_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    for age, years in {"070Y": 70, "006M": 0.5, "026W": 0.5, "": None, "Erika": None}.items():
        path.write_bytes(dicom(GREY, PatientAge=age, ViewPosition="see Erika", PatientSex="?"))
        assert header_facts(path) == ({} if years is None else {"age": years})
