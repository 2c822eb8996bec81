"""Acquisition: measured on images made with one property each."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from cxrnet.data.acquisition import HEADER, PIXELS, measure_acquisition, read_headers
from cxrnet.data.images.reader import Images


def measured(pictures: list[Image.Image], folder: Path) -> pd.DataFrame:
    paths = [folder / f"{place}.png" for place in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    sizes = {name: [getattr(picture, name) for picture in pictures] for name in ("width", "height")}
    manifest = pd.DataFrame({"path": [str(path) for path in paths], **sizes})
    small = [np.asarray(picture.convert("L").resize((64, 64))) for picture in pictures]
    return measure_acquisition(Images(np.stack(small), np.arange(len(small))), manifest)


def grey(**changes: int) -> Image.Image:
    random = np.random.default_rng(changes.get("seed", 0))
    smooth = random.integers(60, 180, (8, 8)).astype(np.uint8)
    return Image.fromarray(smooth).resize((changes.get("width", 128), 128), Image.Resampling.BICUBIC)


def test_each_column_answers_to_its_property(tmp_path: Path) -> None:
    plain, wide = grey(), grey(width=256)
    framed = plain.copy()
    framed.paste(0, (0, 0, 32, 128))
    lettered = plain.copy()
    ImageDraw.Draw(lettered).rectangle((0, 0, 70, 30), fill=0)
    ImageDraw.Draw(lettered).text((4, 4), "PORT", fill=255, font_size=22)
    noisy = Image.fromarray(
        np.clip(np.asarray(plain) + np.random.default_rng(1).normal(0, 20, (128, 128)), 0, 255).astype(np.uint8)
    )
    deep = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
    table = measured([plain, wide, framed, lettered, noisy, plain.convert("RGB"), deep], tmp_path)
    assert [*table.columns] == [*HEADER, *PIXELS]
    assert table["aspect"].tolist()[:2] == [1, 2]
    assert table["black_border"].round(2).tolist()[:3] == [0, 0, 0.12]  # 32 of 128 columns, no row
    assert table["corner_text"][3] > 0.02 > 0.005 > table["corner_text"][0]
    assert table["sharpness"][4] > 2 * table["sharpness"][0]
    assert table["colour"].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert table["bits"].tolist() == [8, 8, 8, 8, 8, 8, 16]
    assert np.isfinite(table.to_numpy()).all()


def test_headers_name_format_and_mode_where_there_is_a_file(tmp_path: Path) -> None:
    grey().save(tmp_path / "called.png", "JPEG")
    paths = [str(tmp_path / "called.png"), str(tmp_path / "gone.png"), "shards/images/shard.00000.mds#3"]
    headers = read_headers(pd.DataFrame({"path": paths}))
    assert headers["format"].fillna("").tolist() == ["JPEG", "", ""]
    assert headers["mode"].fillna("").tolist() == ["L", "", ""]
    small = Images(np.zeros((3, 64, 64), np.uint8), np.arange(3))
    table = measure_acquisition(
        small.take(np.array([1, 2])), pd.DataFrame({"path": paths[1:], "width": 4, "height": 2})
    )
    assert table[["bits", "colour"]].to_numpy().tolist() == [[8, 0], [8, 0]]


def test_a_constant_image_has_numbers(tmp_path: Path) -> None:
    table = measured([Image.new("L", (50, 40), 0), Image.new("L", (50, 40), 255)], tmp_path)
    assert np.isfinite(table.to_numpy()).all()
    assert table["black_border"].tolist() == [1, 0]
