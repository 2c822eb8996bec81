import numpy as np
import pytest
from PIL import Image

from cxrnet.data.sheets import DPI, SIDE, contact_sheet
from cxrnet.errors import CxrnetError


def test_one_row_a_class_in_alphabetical_order(tmp_path):
    images = np.stack([np.full((40, 40), grey, np.uint8) for grey in (200, 50, 200)])
    contact_sheet(images, ["b", "a", "b"], tmp_path / "new" / "sheet.png", per_class=2)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png").convert("L"))
    side = round(SIDE * DPI)
    assert abs(sheet.shape[0] - 2 * side) <= 2
    left = sheet.shape[1] - 2 * side
    first, second = (left + round((k + 0.5) * side) for k in range(2))
    assert abs(int(sheet[side // 2, first]) - 50) < 5  # row of class a, drawn first
    assert sheet[side // 2, second] == 255  # it has one image only
    assert abs(int(sheet[side + side // 2, second]) - 200) < 5


@pytest.mark.parametrize(
    ("count", "labels", "per_class", "message"),
    [
        (2, ["a"], 1, "2 images and 1 labels"),
        (0, [], 1, "0 images"),
        (1, ["a"], 0, "per_class is 0"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, count, labels, per_class, message):
    with pytest.raises(CxrnetError, match=message):
        contact_sheet(np.zeros((count, 8, 8), np.uint8), labels, tmp_path / "s.png", per_class)
    assert not (tmp_path / "s.png").exists()
