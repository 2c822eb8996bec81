"""Regions: masks lie where their images have what they mark; what is missing is said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.regions import all_corners, around, border, corners, corners_together, enlarged, find_lungs, lung_box
from cxrnet.errors import CxrnetError


def rows(paths: list[Path | None], height: int = 60, width: int = 100) -> pd.DataFrame:
    column = pd.array([str(path) if path else pd.NA for path in paths], "string")
    return pd.DataFrame({"mask_path": column, "height": height, "width": width})


@pytest.fixture
def mask(tmp_path: Path):
    """Writes the mask of the left half of a picture."""

    def write(name: str, size: tuple[int, int] = (60, 100), **changes: int) -> Path:
        picture = np.zeros(size, np.uint8)
        picture[:, : size[1] // 2] = changes.get("value", 255)
        Image.fromarray(picture).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("rule", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(60, 100), (30, 30)])
def test_a_mask_goes_the_way_of_its_image(mask, rule, size):
    """Also where it is of another size, which is said."""
    masks = find_lungs(rows([mask("one.png", size)]), ((40, 40), rule))
    (found,) = masks.array
    wide = {"stretch": 40 * 20, "pad": 24 * 20, "crop": 40 * 20}[rule]
    assert found.sum() == pytest.approx(wide, rel=0.06)
    assert found[20, 2]
    assert not found[20, 30]
    said = " ".join(masks.notes)
    assert ("1 of 1 masks are of another size" in said) == (size != (60, 100))


def test_images_without_a_mask_are_counted_and_why(mask, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths = [mask("one.png"), None, tmp_path / "broken.png", mask("empty.png", value=0), tmp_path / "gone.png"]
    masks = find_lungs(rows(paths), ((32, 32), "stretch"))
    assert masks.known.tolist() == [True, False, False, False, False]
    assert masks.kind == "masks"
    assert not masks.array[1:].any()
    (note,) = masks.notes
    assert note.startswith("4 of 5 images have no mask (of their masks 2 can't be read and 1 are empty)")


def test_without_any_mask_a_box_stands_for_the_lungs_and_it_is_said(mask):
    at = ((32, 32), "stretch")
    masks = find_lungs(rows([None, None]), at)
    assert masks.kind == "box"
    assert masks.known.all()
    assert (masks.array == lung_box((32, 32))).all()
    assert "a box from 5 to 90 % of the height and 5 to 95 % of the width" in masks.notes[0]
    assert find_lungs(rows([mask("one.png")]), at, "box").kind == "box"
    with pytest.raises(CxrnetError, match="lungs=masks: no image has a lung mask; give lungs=box"):
        find_lungs(rows([None]), at, "masks")


def test_what_covers_the_lungs_covers_what_lies_behind_heart_and_diaphragm():
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 20:60, 20:40] = masks[0, 20:50, 60:80] = True
    cover = around(masks)
    assert cover[0].sum() == 55 * 70
    assert not cover[1].any()


def test_corners_have_the_names_that_a_reader_gives_them():
    found = corners((50, 100))
    assert found["top left"][0, 0]
    assert found["top right"][0, 99]
    assert found["bottom left"][49, 0]
    assert all(each.sum() == 10 * 20 for each in found.values())
    assert all_corners((50, 100)).sum() == 4 * 200
    assert border((50, 100)).sum() == 5000 - 40 * 80


def test_corners_are_enlarged_and_put_together():
    images = np.zeros((1, 50, 50), np.uint8)
    images[0, :10, 40:] = 200  # the corner at the top right
    assert (enlarged(images, corners((50, 50))["top right"]) == 200).all()
    assert not enlarged(images, corners((50, 50))["top left"]).any()
    together = corners_together(images)
    assert together.shape == images.shape
    assert (together[0, :23, 28:] == 200).all()
    assert not together[0, 28:].any()
