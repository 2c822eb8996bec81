"""Send the server what is broken: the figures in docs/serving.md.

    python scripts/serve_fuzz.py bundle=<run> images=<folder> [requests=500]

Each request sends one file: an image or DICOM file with bytes changed, cut off, or a wrong header; a PNG that claims
to be huge, one whose text unpacks to a gigabyte, archives, texts, nothing; or a body that is no form. It counts the
answers by status, says how the memory of the server's process changed, and whether an image is read afterwards.
"""

import io
import os
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from serve_load import server

_TAKEN = 8  # requests after which the server's memory is taken as that of its start


def chunk(name: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG."""
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def bombs() -> list[bytes]:
    """Make files that are small and unpack to much."""
    start = b"\x89PNG\r\n\x1a\n"
    size = (60_000).to_bytes(4, "big") * 2
    huge = start + chunk(b"IHDR", size + b"\x08\0\0\0\0") + chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    text = b"a\0\0" + zlib.compress(bytes(300_000_000), 9)
    whole = start + chunk(b"IHDR", (8).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0") + chunk(b"zTXt", text)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50_000_000))
    return [huge, whole, whole + chunk(b"IEND", b""), packed.getvalue()]


def dicoms() -> list[bytes]:
    """Make DICOM files of a drawn picture, whole ones to be broken."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    made = []
    for bits in (8, 16):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
        data.Rows, data.Columns, data.SamplesPerPixel, data.PixelRepresentation = 64, 48, 1, 0
        data.BitsAllocated = data.BitsStored = bits
        data.HighBit = bits - 1
        data.PixelData = np.arange(64 * 48, dtype=np.uint8 if bits == 8 else np.uint16).tobytes()
        file = io.BytesIO()
        pydicom.dcmwrite(file, data, enforce_file_format=True)
        made.append(file.getvalue())
    return made


def broken(rng: np.random.Generator, whole: bytes) -> bytes:
    """Break a file: cut it off, change bytes of its header or anywhere, or take a part out."""
    data = bytearray(whole)
    match int(rng.integers(4)):
        case 0:
            return bytes(data[: int(rng.integers(1, len(data)))])
        case 1:
            for place in rng.integers(0, min(len(data), 400), int(rng.integers(1, 12))):
                data[place] = int(rng.integers(256))
        case 2:
            for place in rng.integers(0, len(data), max(1, len(data) // 50)):
                data[place] = int(rng.integers(256))
        case _:
            start = int(rng.integers(len(data)))
            del data[start : start + int(rng.integers(1, 300))]
    return bytes(data)


def files_to_break(images: Sequence[Path]) -> list[bytes]:
    """Read a few images and write one of them in all formats."""
    found = [path.read_bytes() for path in images[:4]]
    with Image.open(images[0]) as opened:
        small = opened.convert("L").resize((200, 240))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        file = io.BytesIO()
        small.save(file, kind)
        found.append(file.getvalue())
    return found + dicoms()


def resident(process: int) -> float:
    """Read how many megabytes of memory a process has."""
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1000


def main() -> None:
    """Print the figures; exit with 1 where an answer was 5xx or the server doesn't read any more."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if not {"bundle", "images"} <= set(words):
        print(__doc__)
        return
    rng, count = np.random.default_rng(0), int(words.get("requests", 500))
    images = sorted(path for path in Path(words["images"]).rglob("*") if path.is_file())
    whole, odd = files_to_break(images), [*bombs(), b"", b"text", b"%PDF-1.4", bytes(1000), b"GIF89a", os.urandom(5000)]
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    with server(words["bundle"]) as (base, process), httpx.Client(base_url=base, timeout=120) as client:

        def send(data: bytes) -> httpx.Response:
            return client.post("/v1/predict", files={"files": ("a.png", data)})

        for _ in range(_TAKEN):
            send(whole[0])
        before, statuses = resident(process), Counter[int]()
        for number in range(count):
            match number % 10:
                case 0:
                    answer = send(odd[number // 10 % len(odd)])
                case 1:
                    answer = client.post("/v1/predict", content=broken(rng, whole[0])[:20_000], headers=form)
                case _:
                    answer = send(broken(rng, whole[number % len(whole)]))
            statuses[answer.status_code] += 1
        after = resident(process)
        last = send(whole[0])
    told = ", ".join(f"{statuses[status]} x {status}" for status in sorted(statuses))
    print(f"{count} requests: {told} (200: the file could still be read)")
    print(f"memory of the server: {before:.0f} MB before, {after:.0f} MB after")
    print(f"an image after that: {last.status_code}")
    if last.status_code != 200 or any(status >= 500 for status in statuses):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
