import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrnet.data.images import reader as reading
from cxrnet.data.images.decode import read_image
from cxrnet.data.images.reader import read_into, report_bad
from cxrnet.data.images.resize import resize
from cxrnet.errors import CxrnetError

SHAPES = ((30, 20), (30, 20), (17, 40), (30, 20), (8, 8), (17, 40))
SIZES = [((12, 9), "stretch"), ((5, 5), "pad")]


@pytest.fixture
def paths(tmp_path) -> list[str]:
    """Eighty files of three sizes in turn, of which the eighth is none."""
    random = np.random.default_rng(0)
    for place in range(80):
        image = random.integers(0, 256, SHAPES[place % len(SHAPES)]).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"{place:02d}.png")
    (tmp_path / "07.png").write_bytes(b"nothing")
    return [str(path) for path in sorted(tmp_path.iterdir())]


@pytest.mark.parametrize("pixels", [reading._PIXELS, 1500], ids=["all at once", "few at a time"])
@pytest.mark.parametrize("processors", [1, 3])
def test_each_image_comes_to_its_row_as_if_it_were_read_alone(paths, monkeypatch, pixels, processors):
    monkeypatch.setattr(reading, "_PIXELS", pixels)
    monkeypatch.setattr(reading, "processors", lambda: processors)
    rows = np.random.default_rng(1).permutation(80)[:70].tolist()
    rows = [*rows, *({7} - set(rows))]
    arrays = [np.zeros((80, *size), np.uint8) for size, _ in SIZES]
    facts, bad = read_into(arrays, rows, paths, SIZES)
    assert bad == {7: "not an image"}
    for place, row in enumerate(rows):
        if row == 7:
            assert not facts["read"][place]
            assert not arrays[0][row].any()
            continue
        original = read_image(Path(paths[row]).read_bytes(), paths[row])
        assert (facts["height"][place], facts["width"][place]) == original.shape
        for array, (size, rule) in zip(arrays, SIZES, strict=True):
            np.testing.assert_array_equal(array[row], resize(original, size, rule))
    left = [row for row in range(80) if row not in rows]
    assert not any(array[left].any() for array in arrays)


def test_large_images_do_not_wait_for_each_other(paths, monkeypatch):
    """Or the memory that is needed would grow with their size."""
    most = []
    resize_into = reading._resize_into
    monkeypatch.setattr(reading, "_PIXELS", 500)
    monkeypatch.setattr(reading, "_resize_into", lambda *words: most.append(len(words[1])) or resize_into(*words))
    read_into([np.zeros((80, 6, 6), np.uint8)], range(80), paths, [((6, 6), "stretch")])
    assert max(most) <= 2  # of 64 pixels at least one, and one that is larger


def test_what_breaks_one_thread_ends_the_others(paths, monkeypatch):
    """Ctrl-C comes into the thread that waits, and files may take seconds each."""
    begun = []

    def read(path: str) -> bytes:
        begun.append(path)
        if path == paths[0]:
            raise MemoryError
        return Path(path).read_bytes()

    monkeypatch.setattr(reading, "_read_bytes", read)
    monkeypatch.setattr(reading, "processors", lambda: 1)
    with pytest.raises(MemoryError):
        read_into([np.zeros((80, 6, 6), np.uint8)], range(80), paths, [((6, 6), "stretch")])
    assert len(begun) < 40


LARGE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from cxrnet.data.images import reader as reading

file = Path(sys.argv[1], "large.png")
Image.new("RGBA", (3000, 3000), (100, 0, 0, 200)).save(file, compress_level=1)
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
reading.processors = lambda: 64  # which must not raise it
reading._MEMORY = reading.MAX_MEMORY = 10_000_000  # so that 9 million pixels are large
most = []
for number in (1, 4):
    arrays = [np.zeros((4, 8, 8), np.uint8)]
    reading.read_into(arrays, range(number), [str(file)] * number, [((8, 8), "stretch")])
    most.append(peak())
print(*most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most that was held")
def test_several_large_images_need_no_more_memory_than_one(tmp_path):
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, four = map(float, done.stdout.split())
    assert four - one < 25  # MB; another one would need 45


def test_files_that_wait_for_memory_are_read_as_others(paths, monkeypatch):
    arrays = [[np.zeros((80, *size), np.uint8) for size, _ in SIZES] for _ in range(2)]
    read_into(arrays[0], range(80), paths, SIZES)
    monkeypatch.setattr(reading, "_LARGE", 10)
    monkeypatch.setattr(reading, "processors", lambda: 3)
    monkeypatch.setattr(reading, "_MEMORY", 2_000)
    monkeypatch.setattr(reading, "MAX_MEMORY", 6_000)
    _, bad = read_into(arrays[1], range(80), paths, SIZES)
    assert bad == {7: "not an image"}
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        (["not finite", "not finite"], "not one image is left: save them with finite numbers$"),
        (["missing", "empty"], "not one image is left: check the paths$"),
        (["not finite"], "; save them with finite numbers or remove them, or set on_error=skip to leave them out$"),
        (["truncated"], "; mend or remove them, or set on_error=skip"),
    ],
)
def test_what_to_do_about_files_that_give_no_image(kinds, advice):
    with pytest.raises(CxrnetError, match=advice):
        report_bad(dict(enumerate(kinds)), ["a.tif", "b.tif"], "fail", "on_error")


def test_a_huge_file_is_refused_without_reading_it(tmp_path, monkeypatch):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2_000_000_000)  # takes no room on the disk
    monkeypatch.setattr(reading, "_read_bytes", None)
    _, bad = read_into([np.zeros((1, 8, 8), np.uint8)], [0], [str(tmp_path / "huge.png")], [((8, 8), "stretch")])
    assert bad == {0: "too much memory"}
