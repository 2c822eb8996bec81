import numpy as np
import pytest
from PIL import Image

from cxrnet.data.phantom import render as workers


@pytest.mark.parametrize("cores", [2, 3])
def test_several_processes_draw_what_one_draws(tmp_path, monkeypatch, cores):
    monkeypatch.setattr(workers, "WORTH", 1)
    for name, count in (("one", 1), ("many", cores)):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        workers.draw(tmp_path / name, images=8, size=64, seed=3)
    one, many = (sorted((tmp_path / name).rglob("*.png")) for name in ("one", "many"))
    assert len(one) == len(many) == 3 * 8
    for a, b in zip(one, many, strict=True):
        assert a.relative_to(tmp_path / "one") == b.relative_to(tmp_path / "many")
        assert np.array_equal(np.asarray(Image.open(a)), np.asarray(Image.open(b)))


def test_a_helper_that_fails_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WORTH", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("sys.path", [])  # the helper inherits it
    monkeypatch.setattr(workers, "__name__", "cxrnet_that_is_not_there")
    with pytest.raises(RuntimeError, match=r"a drawing process failed: .*cxrnet_that_is_not_there"):
        workers.draw(tmp_path, images=8, size=64, seed=3)
