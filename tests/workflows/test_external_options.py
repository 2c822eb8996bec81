import pytest
from hydra import compose, initialize_config_dir
from omegaconf.errors import MissingMandatoryValue

from cxrnet.cli.app import config_folder
from cxrnet.errors import CxrnetError
from cxrnet.evaluate import by_name
from cxrnet.workflows.evaluate import configured_sets


def configured(*words: str, option: str | None = None) -> dict:
    overrides = by_name(["bundle=x", *words])
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return configured_sets(compose("evaluate", overrides), option, overrides)


def test_data_and_external_sets_by_the_names_of_their_options():
    sets = configured(
        "data=covid_chestxray",
        "data.root=a",
        "+external=[covid19_image,folder]",
        "sets.covid19_image.root=b",
        "sets.folder.root=c d",
        "sets.folder.on_error=skip",
        option="covid_chestxray",
    )
    assert list(sets) == ["covid_chestxray", "covid19_image", "folder"]
    assert [each["manifest"]["root"] for each in sets.values()] == ["a", "b", "c d"]
    assert [each["on_error"] for each in sets.values()] == ["fail", "fail", "skip"]


def test_one_option_may_serve_several_data_sets():
    sets = configured("external={north: folder, south: folder}", "sets.north.root=n", "sets={south: {root: s}}")
    assert {name: each["manifest"]["root"] for name, each in sets.items()} == {"north": "n", "south": "s"}


def test_what_the_manifest_takes_can_be_changed_and_the_seed_arrives():
    sets = configured("+external=[covid_chestxray,merged]", "sets.covid_chestxray.manifest.views=[AP Supine]", "seed=7")
    assert sets["covid_chestxray"]["manifest"]["views"] == ["AP Supine"]
    assert sets["merged"]["manifest"]["seed"] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data: nothing to evaluate on; give data=<option> or"),
        (["+external=[foo]"], "external: 'foo' is no option of data; there are covid19_image, "),
        (["+external=[_base]"], "external: '_base' is no option of data"),
        (["+external=phantom"], r"external: phantom won't do; give options of data, as \[a, b\], or names"),
        (["+external=[phantom,phantom]"], "external: .* won't do"),
        (["+external={a/b: phantom}"], "external: 'a/b' is no name for a folder"),
        (["+external=[phantom]", "sets.other.root=x"], "sets.other: there is no such data set; .*: phantom"),
        (["+external=[phantom]", "classes.other={a: b}"], "classes.other: there is no such data set"),
        (["+external=[phantom]", "classes.phantom=COVID"], "classes.phantom: COVID won't do; give {key: value}"),
        (
            ["+external=[phantom]", "sets.phantom.limit=3"],
            "sets.phantom.limit: means nothing here; .* root, manifest, on_",
        ),
        (
            ["+external=[phantom]", "sets.phantom.manifest.rot=3"],
            "sets.phantom.manifest.rot: Key 'rot' is not in struct",
        ),
        (["+external=[folder]"], "sets.folder.root: Missing mandatory value.*; give sets.folder.<key>=<value>"),
    ],
)
def test_what_means_nothing_is_said(words, message):
    with pytest.raises(CxrnetError, match=message) as caught:
        configured(*words)
    assert "\n" not in str(caught.value)


def test_what_means_nothing_for_data_is_said_too():
    with pytest.raises(CxrnetError, match=r"data\.limit: means nothing here"):
        configured("data=phantom", "data.limit=3", option="phantom")
    with pytest.raises(CxrnetError, match="external: 'phantom' is the data set of data too"):
        configured("data=phantom", "+external=[phantom]", option="phantom")
    with pytest.raises(MissingMandatoryValue, match=r"data\.root"):
        configured("data=folder", option="folder")
