"""Explain the predictions of a bundle: maps of what it looks at, laid over the images, as PNG."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.atomic import whole_file, write_table
from cxrnet.core.config import plain_config
from cxrnet.data.images.store import load_images
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import read_mix
from cxrnet.evaluation.predictions import classes_of
from cxrnet.inference import mix_facts, predict_files
from cxrnet.models.attribution import captum
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.reporting.plots.explanation import Caption, explanation
from cxrnet.workflows.bundle_source import find_bundle
from cxrnet.workflows.maps import TITLES, make_maps

TABLE = "explanations.csv"


def explain(config: DictConfig, folder: Path) -> None:
    """Draw a map of each image into a folder, and write ``explanations.csv``.

    Raises:
        CxrnetError: a mistake in the configuration or the images, or a folder that holds explanations already.
    """
    refuse_used(folder, TABLE, "explanations")
    plain = plain_config(config)
    with TemporaryDirectory() as scratch:
        bundle = load_bundle(find_bundle(plain["bundle"], Path(scratch), outputs=plain["outputs"]).folder)
    device = device_of(plain["device"])
    if plain["label"] is not None and plain["label"] not in bundle.classes:
        raise CxrnetError(f"label: '{plain['label']}' is no class of the bundle ({', '.join(bundle.classes)})")
    captum()  # or its lack would be told after the predictions
    mix = read_mix(plain["prior"], bundle.prior)
    console.log_to(folder)
    tables = predict_files(bundle, plain["input"], plain["batch_size"], device, plain["on_error"], mix)
    bundle.network.to(device)
    rows = [_draw(table, bundle, plain, folder) for table in tables]
    drawn = pd.concat(rows, ignore_index=True)
    write_table(drawn, folder / TABLE)
    console.heading("Maps")
    for label, text in mix_facts(bundle, mix).items():
        console.say(label, text)
    console.say("images", f"{len(drawn)}, {TITLES[plain['method']]} of {plain['label'] or 'the predicted class'}")
    for text, count in Counter(each.partition(":")[0] for each in drawn["caution"] if each).items():
        console.warn(f"{count} of {len(drawn)} maps: {text}")
    say_places({"pictures": str(shown(folder)), "table": str(shown(folder) / TABLE)})


def _draw(table: pd.DataFrame, bundle: Bundle, config: dict[str, object], folder: Path) -> pd.DataFrame:
    """Draw the images of a table of predictions; return a row for each picture."""
    rows, images = load_images(table, bundle.network.config.size, bundle.resize, "fail")
    classes = classes_of(rows)
    labels = rows["predicted"] if config["label"] is None else pd.Series(config["label"], rows.index)
    places = [classes.index(str(label)) for label in labels]
    method, seed = str(config["method"]), int(str(config["seed"]))
    maps = make_maps(bundle.network, images[:], places, method, seed)
    found = []
    for place, row in enumerate(rows.to_dict("records")):
        label = labels.iloc[place]
        words = [
            f"{TITLES[method]} of {label}, probability {row[f'prob_{label}']:.2f}; predicted {row['predicted']}",
            str(row["image_id"]),
        ]
        caution = maps.caution(place)
        picture = explanation(images[np.array([place])][0], maps.array[place], Caption(words, caution))
        file = folder / f"{row['image_id']}_{method}.png"
        with whole_file(file) as partial:
            picture.save(partial, "PNG")
        found.append(
            {
                "image_id": row["image_id"],
                "class": label,
                "probability": row[f"prob_{label}"],
                "predicted": row["predicted"],
                "agreement": maps.agreement[place],
                "caution": caution,
                "picture": file.relative_to(folder).as_posix(),
            }
        )
    return pd.DataFrame(found)
