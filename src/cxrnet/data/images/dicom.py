"""DICOM files: radiographs as detectors write them, to grey of 8 bits; nothing that names a person is ever read.

Read are computed and digital radiographs and secondary captures of one frame (DICOM PS3.3, A.2, A.26, A.8). Values go
through the file's own steps: modality (rescale or table), values of interest (table or window, the first where there
are several), and what is least is shown black, or white in MONOCHROME1. Without a window the range is that of the
values, by the same rule as of any image of more than 8 bits (:mod:`cxrnet.data.images.deep`), so that a PNG of the same
values gives the same pixels; 8 bits stay as they are. Padding outside of the picture is black and counts for nothing.
"""

import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cxrnet.data.images.deep import Scaled, scale

MODALITIES = ("CR", "DX", "RG")
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # SOP class of secondary captures, whose modality may be any
_CAPTURED = ("", "OT", "SC", *MODALITIES)

# The only elements that are read, beside _FACTS where they are asked for. None names a patient, a date, a place or a
# device.
_HEADER = (
    *("Modality", "SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
_COLOURS = ("Red", "Green", "Blue")
_SHOWN = (
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction"),
    *("WindowCenter", "WindowWidth", "PresentationLUTShape", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
)
_VIEWS = "AP|PA|LL|RL|RLD|LLD|RLO|LLO|LAT|LATERAL"  # PS3.3, C.8.11.5.1; a free text might hold anything
_FACTS = ("ViewPosition", "PatientSex", "PatientAge")

_PREAMBLE = 128  # bytes before "DICM"
BEGINNING = _PREAMBLE + 4  # bytes by which a file is known
_BARE = re.compile(rb"[\x02\x08]\0[\0-\x70]\0(?:UL|CS|UI|SH|LO|DA|TM|.\0\0\0)", re.DOTALL)  # group 2 or 8, no preamble
_YEARS = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}  # units of an age in a year
# Bytes a pixel besides the stored values: three floats and two copies in 8 bits; of colours, integers of 64 bits.
_GREY_BYTES, _COLOUR_BYTES = 26, 56

Values = npt.NDArray[Any]


class DicomError(ValueError):
    """A file that gives no radiograph; ``kind`` is one of those of :class:`cxrnet.data.images.decode.ImageError`."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


def is_dicom(beginning: bytes) -> bool:
    """Tell a DICOM file by its first :data:`BEGINNING` bytes; also one that lacks the preamble, as old ones do."""
    return beginning[_PREAMBLE:BEGINNING] == b"DICM" or _BARE.match(beginning) is not None


class Dicom:
    """A DICOM file of which only the header has been read.

    Attributes:
        pixels: number of them.
        mode: mode of Pillow for such pixels: ``L``, ``I;16`` (more than 8 bits) or ``RGB``.
        memory: bytes that decoding needs, the file included.

    Raises:
        DicomError: the file is damaged, holds no radiograph of one frame, or pydicom isn't installed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = _read(file, _HEADER, pixels=False)
        modality, kind = str(header.get("Modality", "") or ""), str(header.get("SOPClassUID", ""))
        captured = kind == _CAPTURES or kind.startswith(f"{_CAPTURES}.")
        if modality not in (_CAPTURED if captured else MODALITIES):
            raise DicomError("no radiograph", f"modality {modality}" if modality.isalnum() else "unknown modality")
        try:
            frames = int(header.get("NumberOfFrames") or 1)
            self.pixels = int(header.Rows) * int(header.Columns)
            samples, bits = int(header.get("SamplesPerPixel", 1)), int(header.BitsStored)
            bytes_each = samples * -(-int(header.BitsAllocated) // 8)
        except (AttributeError, TypeError, ValueError) as error:
            raise DicomError("truncated") from error
        if frames != 1:
            raise DicomError("several frames")
        if self.pixels < 1:
            raise DicomError("truncated")
        colour = samples > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR"
        self.mode = "RGB" if colour else "L" if bits <= 8 else "I;16"
        self.memory = file.seek(0, 2) + self.pixels * (bytes_each + (_COLOUR_BYTES if colour else _GREY_BYTES))

    def decode(self) -> Scaled:
        """Decode to grey levels ``(H, W)`` of 8 bits, as the file says that it is to be shown.

        Raises:
            DicomError: the pixels are damaged, or compressed in a way that nothing here reads.
        """
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

        data = _read(self._file, (*_HEADER, *_SHOWN), pixels=True)
        try:
            stored: Values = data.pixel_array
        except (NotImplementedError, RuntimeError) as error:  # what pydicom has no decoder for
            lacking = "plugin" in str(error) or "ecoder" in str(error) or isinstance(error, NotImplementedError)
            raise DicomError("compression" if lacking else "truncated") from error
        if str(data.get("PhotometricInterpretation")) == "PALETTE COLOR":
            stored = apply_color_lut(stored, data)
        if stored.ndim == 3:
            return _from_values(_luma(stored), 8 * stored.dtype.itemsize)
        outside = _padding(stored, data)
        if outside is not None and outside.all():
            outside = None
        steps = "ModalityLUTSequence" in data or _rescale(data) != (1, 0)
        values = apply_modality_lut(stored, data) if steps else stored
        shown = _window(values, data)
        if shown is None:
            if outside is not None:
                values = np.where(outside, values[~outside].min(), values)
            shown = _from_values(values, 0 if steps or stored.dtype.kind != "u" else int(data.BitsStored))
        pixels, outliers = shown
        white = str(data.get("PhotometricInterpretation")) == "MONOCHROME1"
        if (white or str(data.get("PresentationLUTShape", "")) == "INVERSE") and pixels.any():  # not what is constant
            pixels = np.bitwise_not(pixels)
        if outside is not None:
            pixels[outside] = 0
        return Scaled(pixels, outliers)


def header_facts(path: str | Path) -> dict[str, str | float]:
    """Read ``view``, ``sex`` and ``age`` (years) from the header of a DICOM file, those that it has; nothing else.

    Raises:
        DicomError: the file is damaged.
    """
    with Path(path).open("rb") as file:
        if not is_dicom(file.read(BEGINNING)):
            return {}
        header = _read(file, _FACTS, pixels=False)
    facts: dict[str, str | float] = {}
    for name, element, known in (("view", "ViewPosition", _VIEWS), ("sex", "PatientSex", "[MFO]")):
        value = str(header.get(element, "") or "").strip().upper()
        if re.fullmatch(known, value):
            facts[name] = value
    if age := re.fullmatch(r"(\d{3})([YMWD])", str(header.get("PatientAge", "") or "").strip()):
        facts["age"] = round(int(age[1]) / _YEARS[age[2]], 2)
    return facts


def _read(file: BinaryIO, elements: Sequence[str], pixels: bool) -> Any:  # noqa: ANN401 (a data set of pydicom)
    """Read some elements of a file, and its pixels."""
    try:
        from pydicom import config, dcmread
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
    except ImportError as error:
        raise DicomError("no reader") from error
    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its messages quote values, which may name a person
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
    file.seek(0)
    try:
        names = [*elements, "PixelData"] if pixels else list(elements)
        data = dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=names)
        if "TransferSyntaxUID" not in data.file_meta:
            implicit, little = data.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except MemoryError:
        raise
    except Exception as error:  # damaged data makes it raise all kinds
        raise DicomError("truncated") from error
    return data


def _padding(stored: Values, data: Any) -> npt.NDArray[np.bool_] | None:  # noqa: ANN401
    """Mark the pixels ``(H, W)`` that are no part of the picture (PS3.3, C.7.5.1.1.2); ``None`` where none are."""
    if data.get("PixelPaddingValue") is None:
        return None
    first = int(data.PixelPaddingValue)
    limit = data.get("PixelPaddingRangeLimit")
    last = first if limit is None else int(limit)
    outside: npt.NDArray[np.bool_] = (stored >= min(first, last)) & (stored <= max(first, last))
    return outside if outside.any() else None


def _window(values: Values, data: Any) -> Scaled | None:  # noqa: ANN401
    """Show values by the table or the window of the file (PS3.3, C.11.2); ``None`` where it has neither."""
    from pydicom.pixels.processing import apply_voi

    if data.get("VOILUTSequence"):
        table = data.VOILUTSequence[0]
        levels = apply_voi(values.astype(np.int64), data, index=0).astype(np.float64)
        return Scaled(_levels(levels / (2 ** int(table.LUTDescriptor[2]) - 1)), outliers=False)
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function, wide = str(data.get("VOILUTFunction", "") or "LINEAR"), values.astype(np.float64)
    if width <= 0 or not np.isfinite([centre, width]).all():
        raise DicomError("truncated")
    if function == "SIGMOID":
        shown = 1 / (1 + np.exp(np.clip(-4 * (wide - centre) / width, -500, 500)))
    elif function == "LINEAR_EXACT":
        shown = (wide - centre) / width + 0.5
    elif width > 1:
        shown = (wide - (centre - 0.5)) / (width - 1) + 0.5
    else:  # a step
        shown = (wide > centre - 0.5).astype(np.float64)
    return Scaled(_levels(shown), outliers=False)


def _rescale(data: Any) -> tuple[float, float]:  # noqa: ANN401
    slope, intercept = (_first(data.get(f"Rescale{name}")) for name in ("Slope", "Intercept"))
    return (1.0 if slope is None else slope), (0.0 if intercept is None else intercept)


def _first(value: Any) -> float | None:  # noqa: ANN401 (a number, a sequence of them, or nothing)
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else value)


def _levels(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return levels


def _from_values(values: Values, bits: int) -> Scaled:
    """Take 8 bits as they are, and scale all else."""
    if bits == 8:
        return Scaled(values.astype(np.uint8), outliers=False)
    return scale(lambda: [values], *values.shape)


def _luma(colours: Values) -> Values:
    """Weigh colours ``(H, W, 3)`` as Pillow does."""
    wide = colours.astype(np.uint64)
    luma = (wide[..., 0] * 19595 + wide[..., 1] * 38470 + wide[..., 2] * 7471 + 2**15) >> 16
    return luma.astype(colours.dtype)
