from itertools import pairwise

import pytest
import yaml

from cxrnet.cli.app import config_folder
from cxrnet.cli.help import help_text
from cxrnet.workflows.settings import COMMANDS


@pytest.mark.parametrize("name", [command.__name__.lower() for command in COMMANDS])
def test_every_command_shows_its_keys_as_yaml(name):
    shown = help_text(config_folder(), name, []).partition("(key=value):\n\n")[2]
    assert yaml.safe_load(shown)


def test_keys_have_the_values_of_the_command_line_options_and_comments():
    shown = help_text(config_folder(), "train", ["model=vgg16", "data.limit=7"])
    assert "\nlogger: csv, none, tensorboard\n" in shown
    assert "_complete_split" not in shown.partition("Values")[0]
    keys = shown.partition("(key=value):\n\n")[2]
    assert yaml.safe_load(keys)["data"]["limit"] == 7
    lines = keys.splitlines()
    assert lines[lines.index("  hidden:") - 1].startswith("  # widths of the dense layers")
    assert lines[lines.index("  batch_size: 32") - 1].lstrip().startswith("# ")  # of a class that is inherited from


def test_no_key_of_a_data_class_of_ours_goes_without_a_word():
    lines = help_text(config_folder(), "train", []).splitlines()
    bare = [now for last, now in pairwise(lines) if now[:1].isalpha() and not last.startswith("#")]
    groups = ("data", "model", "augment", "schedule", "loss", "optimizer", "trainer", "callbacks", "logger")
    assert [line.partition(":")[0] for line in bare[bare.index("data:") :]] == [*groups, "evaluation", "tracking"]
