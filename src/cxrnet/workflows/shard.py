"""Write a data set as shards.

data -> manifest -> shards of images -> duplicates -> tables
"""

import json
import re
import shlex
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from cxrnet.core import console
from cxrnet.core.config import Config, plain_config
from cxrnet.data.settings import check_call
from cxrnet.data.shards.storage import resolved
from cxrnet.data.shards.writing import write_shards


def shard(config: DictConfig) -> None:
    """Write the shards of a data set, or those that are missing.

    Raises:
        CxrnetError: a mistake in the configuration or the data, or the shards can't be written.
    """
    plain = plain_config(config)
    data, target = plain["data"], resolved(plain["shards"])
    console.heading("Data")
    with console.heard():
        source = instantiate(data["manifest"])
        check_call(source, "data.manifest")
        manifest = source()
    console.say("images", f"{len(manifest)} of {', '.join(sorted(set(manifest['source'])))}")
    height, width = data["size"]
    written = write_shards(
        manifest,
        target,
        ((height, width), data["resize"]),
        plain["per_shard"],
        data["on_error"],
        Path(data["cache"]) if data["cache"] else None,
        data["known_issues"] or {},
    )
    console.heading("Shards")
    if written.left_out:
        console.warn(f"{written.left_out} of {len(manifest)} files gave no image and are left out")
    console.say("images", f"{written.images}, {height} x {width} pixels ({data['resize']})")
    new, rate = written.shards - written.before, ""
    if new and written.seconds:
        rate = f", {new} of them now, {written.images * new / written.shards / written.seconds:.0f} images/s"
    console.say("shards", f"{written.shards}, {written.bytes / 1e9:.3g} GB{rate or ', all of them there before'}")
    console.say("duplicates", f"{written.duplicates} pairs")
    console.say("place", target)
    console.heading("To train with them")
    print(f"\n{_training(data, target)}")


def _training(config: Config, target: str) -> str:
    """Write the command that trains on the shards of a configuration's ``data``."""

    def quoted(value: str) -> str:  # in Hydra's quotation marks
        return value if re.fullmatch(r"[\w./:-]+", value) else json.dumps(value, ensure_ascii=False)

    height, width = config["size"]
    words = [f"data.root={quoted(target)}", f"data.size=[{height},{width}]", f"data.resize={config['resize']}"]
    if config["classes"]:  # the manifest doesn't hold their order
        words.append(f"data.classes=[{','.join(map(json.dumps, map(str, config['classes'])))}]")
    return shlex.join(["python", "-m", "cxrnet.train", "data=shards", *words])
