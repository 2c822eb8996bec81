"""``python -m cxrnet.sign`` as a user types it."""

import json

from cxrnet.models.bundle import Bundle, load_bundle, save_bundle


def test_a_bundle_that_was_changed_on_purpose_is_signed(make_network, tmp_path, command):
    folder = tmp_path / "bundle"
    save_bundle(Bundle(make_network(), "pad", 1.0, {}, "", {}, {}), folder)
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 2.0}))
    done = command(tmp_path, "sign", f"bundle={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == json.loads(path.read_text())["digest"]
    assert load_bundle(folder).temperature == 2.0
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_what_is_out_of_its_range_is_not_signed(make_network, tmp_path, command):
    folder = tmp_path / "bundle"
    save_bundle(Bundle(make_network(), "pad", 1.0, {}, "", {}, {}), folder)
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": -1}))
    done = command(tmp_path, "sign", f"bundle={folder}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "its temperature is -1" in done.stderr
