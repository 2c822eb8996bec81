import numpy as np
import pytest
from PIL import Image, ImageDraw

from cxrnet.data.images.reader import binary_warning, look_binary
from cxrnet.data.images.resize import resize_all


def lungs(levels: int) -> np.ndarray:
    """Two ellipses, 0 or 255, or as a radiograph of so many grey levels."""
    image = Image.new("L", (299, 299))
    draw = ImageDraw.Draw(image)
    for left in (50, 170):
        draw.ellipse((left, 40, left + 80, 260), fill=255)
    mask = np.asarray(image)
    noise = np.random.default_rng(0).integers(0, levels, mask.shape)
    return mask if levels == 2 else (40 + mask // 3 + noise).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (224, 224)])
def test_masks_and_blank_pictures_look_binary_at_any_size_and_radiographs_dont(size):
    originals = np.stack([lungs(2), np.zeros((299, 299), np.uint8), lungs(80)])
    assert look_binary(resize_all(originals, size, "stretch")).tolist() == [True, True, False]


def test_the_warning_names_the_first():
    assert binary_warning([], 9) == []
    (text,) = binary_warning([f"{i}.png" for i in range(7)], 20)
    assert text.startswith("7 of 20 images have two grey levels or one")
    assert text.endswith("0.png, 1.png, 2.png, 3.png, 4.png, ...")
