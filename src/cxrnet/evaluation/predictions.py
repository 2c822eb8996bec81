"""The table of predictions: one row an image. Every reported metric is a function of it.

=================  =======  ==============================================================================
column             dtype    meaning
=================  =======  ==============================================================================
image_id           string   unique in the table
path               string   the image file
label              string   name of the class; missing where the truth is not known
split              string   ``train``, ``val``, ``test`` or missing
source             string   where the image comes from
patient_id         string   missing where unknown
logit_<class>      float32  one column a class
prob_<class>       float64  softmax of the logits; the order of these columns is the order of the classes
predicted          string   name of the predicted class, which need not be the most probable one
                            (:class:`cxrnet.evaluation.decision.DecisionRule`)
certainty          float64  of the prediction; only where decision weights decide, else it is the probability of
                            the predicted class (:meth:`cxrnet.evaluation.decision.DecisionRule.certainty`)
deferred           bool     the prediction is deferred to a reader; only where the model has a deferral threshold
=================  =======  ==============================================================================

Where the data have them, ``group_id`` (images that are duplicates of each other), ``view``, ``sex`` and ``age`` follow:
a bootstrap and subgroups need them. Where a gate was asked, ``turned_away`` (bool: the image isn't like those of the
training; it has no class and no probabilities) and ``inverted`` (bool: its negative is) follow. In the pooled
predictions of a cross-validation ``fold`` and ``leaked`` (bool: a duplicate, or another image of the patient, was in
train or val of that fold) stand last. The predictions of any other program in this shape are as good as our own. A file
needs ``image_id``, ``label``, ``predicted`` and the ``prob_`` columns. The others are added where it lacks them: logits
as log(prob), the rest empty.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.special
from sklearn.metrics import confusion_matrix

from cxrnet.core.atomic import whole_file
from cxrnet.core.grouping import read_ids
from cxrnet.core.spreadsheet import as_it_was, to_csv
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import DecisionRule, decide

ROW_COLUMNS = ("image_id", "path", "label", "split", "source", "patient_id")
OPTIONAL_COLUMNS = ("group_id", "view", "sex", "age")
SUFFIXES = (".csv", ".parquet", ".json", ".jsonl")  # of files that predictions are written to
CERTAINTY, DEFERRED, LEAKED = "certainty", "deferred", "leaked"
TURNED_AWAY, INVERTED = "turned_away", "inverted"
# Why a file can't go without a column; the other columns of a row may be empty.
_NEEDED_COLUMNS = {
    "image_id": "add a name for each image",
    "label": "add the class of each image, empty where the truth is not known",
    "predicted": "add the class that was predicted for each image",
}
_OLD_NAMES = {"referred": DEFERRED, "seen": LEAKED}  # by the one that older runs wrote
_SUM_TOLERANCE = (
    1e-3  # passes probabilities that another program rounded to four digits, fails sigmoids and percentages
)
_EVEN = DecisionRule()


def make_predictions(
    rows: pd.DataFrame,
    classes: Sequence[str],
    logits: npt.NDArray[np.float32],
    rule: DecisionRule = _EVEN,
    shift: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Put the logits of a model beside the images they were computed for.

    Args:
        rows: a manifest, or any table with its columns ``image_id, path, label, split, source, patient_id``.
        classes: the names of the K >= 2 classes, in the order of the logits.
        logits: ``(N, K) float32``, row for row with ``rows``, for the prior of the training.
        rule: what turns probabilities into predictions; by itself the most probable class is predicted.
        shift: added to the logits for another prior (:meth:`cxrnet.evaluation.decision.Mix.shift`), (K,). Logits,
            probabilities and what they decide follow it; thresholds, and which images are deferred, stay with the
            training prior that they were chosen at.

    Returns:
        A checked table of predictions, in the order of ``rows``.

    Raises:
        CxrnetError: a column is missing, logits are NaN, or the table does not pass :func:`check_predictions`.
    """
    if missing := [name for name in ROW_COLUMNS if name not in rows.columns]:
        raise CxrnetError(f"predictions: column {', '.join(missing)} missing; give rows of a manifest")
    if diverged := int(np.isnan(logits).any(axis=1).sum()):
        raise CxrnetError(
            f"predictions: the logits of {diverged} of {len(logits)} images are nan: the training diverged; lower the "
            "learning rate"
        )
    table = rows[list(ROW_COLUMNS)].reset_index(drop=True).astype("string")
    at_training = probabilities = softmax(logits)
    if shift is not None and shift.any():
        logits = (logits + shift).astype(np.float32)
        probabilities = softmax(logits)
    for index, name in enumerate(classes):
        table[f"logit_{name}"] = logits[:, index].astype(np.float32)
    for index, name in enumerate(classes):
        table[f"prob_{name}"] = probabilities[:, index]
    predicted = decide(probabilities, classes, rule.points, rule.weights, at_training)
    table["predicted"] = pd.array(np.array(classes, object)[predicted], dtype="string")
    if rule.deciding_weights is not None:
        table[CERTAINTY] = rule.certainty(probabilities, classes, predicted)
    if rule.defer_below is not None:
        as_trained = decide(at_training, classes, rule.points, rule.weights)
        table[DEFERRED] = rule.certainty(at_training, classes, as_trained) < rule.defer_below
    for name in OPTIONAL_COLUMNS:
        if name in rows and rows[name].notna().any():
            table[name] = rows[name].astype("string").array
    check_predictions(table, "predictions")
    return table


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Take the softmax over the last axis in float64: ``(N, K) float32`` to ``(N, K)`` in [0, 1], rows sum to one."""
    return np.asarray(scipy.special.softmax(logits.astype(np.float64), axis=-1))


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Return the names of the classes, in the order of the ``prob_`` columns."""
    return [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]


def logits_of(predictions: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the logits, ``(N, K) float32``, classes in order."""
    columns = [f"logit_{name}" for name in classes_of(predictions)]
    return np.asarray(predictions[columns], dtype=np.float32)


def probabilities_of(predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the probabilities, ``(N, K) float64`` in [0, 1], classes in order."""
    columns = [f"prob_{name}" for name in classes_of(predictions)]
    return np.asarray(predictions[columns], dtype=np.float64)


def label_codes(predictions: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return the labels as ``(N,)`` indices into the classes.

    Raises:
        CxrnetError: there are no rows, or labels are missing.
    """
    if len(predictions) == 0:
        raise CxrnetError("evaluation: the table of predictions has no rows; give at least one labelled image")
    if missing := int(predictions["label"].isna().sum()):
        raise CxrnetError(
            f"evaluation: {missing} of {len(predictions)} images have no label; only labelled images can be evaluated"
        )
    return _codes(predictions, "label")


def predicted_codes(predictions: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return the predicted classes as ``(N,)`` indices into the classes."""
    return _codes(predictions, "predicted")


def counts_of(predictions: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the confusion matrix ``(K, K)``: images by label (row) and predicted class (column), in order."""
    known, predicted = label_codes(predictions), predicted_codes(predictions)
    return np.asarray(confusion_matrix(known, predicted, labels=range(len(classes_of(predictions)))))


def _codes(predictions: pd.DataFrame, column: str) -> npt.NDArray[np.intp]:
    order = {name: index for index, name in enumerate(classes_of(predictions))}
    return np.asarray(predictions[column].map(order), dtype=np.intp)


def validation_codes(predictions: pd.DataFrame, what: str) -> npt.NDArray[np.intp]:
    """Return the labels of validation images as ``(N,)`` indices into the classes.

    Args:
        predictions: the rows of the split ``val``; rows of a table without splits count as such.
        what: what is to be chosen, a config key, for the error messages.

    Raises:
        CxrnetError: there are no rows, rows of another split, or labels are missing.
    """
    if len(predictions) == 0:
        raise CxrnetError(f"{what}: there are no validation images to choose it on; give the val split some")
    others = sorted(set(predictions["split"].dropna()) - {"val"})
    if others:
        count = int(predictions["split"].isin(others).sum())
        raise CxrnetError(
            f"{what}: {count} of {len(predictions)} images are of split {', '.join(others)}; "
            "it is chosen on val alone, give only those rows"
        )
    return label_codes(predictions)


def check_predictions(predictions: pd.DataFrame, where: str) -> None:
    """Check what every metric relies on.

    Args:
        predictions: the table.
        where: what the table is, for the error messages (``"outputs/run/predictions.parquet"``).

    Raises:
        CxrnetError: a column is missing, an ``image_id`` stands twice, the probabilities of an image do not sum
            to one, a logit is empty, or ``label`` or ``predicted`` names a class that has no ``prob_`` column.
    """
    classes, n = classes_of(predictions), len(predictions)
    if len(classes) < 2:
        raise CxrnetError(f"{where}: {len(classes)} prob_<class> columns; predictions need at least two classes")
    for name in (*_NEEDED_COLUMNS, *ROW_COLUMNS):
        if name not in predictions.columns:
            hint = _NEEDED_COLUMNS.get(name, "add it; its cells may be empty")
            raise CxrnetError(f"{where}: column {name} missing; {hint}")
    if missing := [f"logit_{name}" for name in classes if f"logit_{name}" not in predictions.columns]:
        raise CxrnetError(
            f"{where}: column {', '.join(missing)} missing; give the logits of all {len(classes)} classes, or of none"
        )
    ids, probabilities = predictions["image_id"], probabilities_of(predictions)
    if empty := int(ids.isna().sum()):
        raise CxrnetError(f"{where}: image_id is empty in {empty} of {n} rows; every image needs one")
    if len(twice := ids[ids.duplicated()]):
        raise CxrnetError(
            f"{where}: image_id '{twice.iloc[0]}' stands in more than one row "
            f"({twice.nunique()} ids in all); an image is counted once"
        )
    total = probabilities.sum(axis=1)
    # Written so that a NaN is bad: `abs(nan - 1) <= tolerance` is False.
    good = (np.abs(total - 1) <= _SUM_TOLERANCE) & (probabilities >= 0).all(axis=1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise CxrnetError(
            f"{where}: the probabilities of image '{ids.iloc[first]}' are not a distribution "
            f"(smallest {probabilities[first].min():.4g}, sum {total[first]:.4g}; {(~good).sum()} of {n} "
            "rows); they must be >= 0 and sum to one (nan: a cell is empty)"
        )
    if empty := int(np.isnan(logits_of(predictions)).any(axis=1).sum()):
        raise CxrnetError(f"{where}: a logit is empty in {empty} of {n} rows; fill it, or leave out all logit_ columns")
    for column in ("label", "predicted"):
        if unknown := sorted(set(predictions[column].dropna().unique()) - set(classes)):
            raise CxrnetError(
                f"{where}: {column} '{unknown[0]}' is not one of the classes {', '.join(classes)} "
                f"({len(unknown)} unknown in all); rename it or drop its rows"
            )
    if empty := int(predictions["predicted"].isna().sum()):
        raise CxrnetError(f"{where}: column predicted is empty in {empty} of {n} rows; fill it")


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of predictions from a ``.parquet`` or ``.csv`` file; further columns are kept.

    Raises:
        CxrnetError: the file is not there, is not a table, or does not pass :func:`check_predictions`.
    """
    path, texts = Path(path), (*ROW_COLUMNS, *OPTIONAL_COLUMNS, "predicted")
    if not path.is_file():
        raise CxrnetError(f"predictions: '{path}' is not a file; give a predictions.parquet or .csv")
    try:
        if path.suffix == ".csv":  # each cell as it was written: ids keep their zeros, a class may be called None or NA
            types = dict.fromkeys(texts, "string")
            table = as_it_was(pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""]))
        else:
            table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(
            f"predictions: '{path}' cannot be read as a table ({reason}); use .csv or .parquet"
        ) from error
    table = table.rename(columns={old: new for old, new in _OLD_NAMES.items() if new not in table})
    for name in table.columns:
        if name in texts:
            table[name] = table[name].astype("string")
        elif name.startswith(("prob_", "logit_")):
            table[name] = _numbers(table[name], str(path))
        if name in ("patient_id", "group_id"):
            table[name] = read_ids(table[name], str(path))
    missing = [name for name in ROW_COLUMNS if name not in table and name not in _NEEDED_COLUMNS]
    table = table.assign(**{name: pd.array([pd.NA] * len(table), dtype="string") for name in missing})
    if not any(name.startswith("logit_") for name in table.columns):
        # The softmax of log(prob) is prob; a probability of 0 has no finite logarithm.
        least, classes = np.finfo(np.float32).tiny, classes_of(table)
        logits = {f"logit_{name}": np.log(table[f"prob_{name}"].clip(lower=least)) for name in classes}
        table = table.assign(**{name: column.astype(np.float32) for name, column in logits.items()})
    check_predictions(table, str(path))
    return table


def _numbers(column: pd.Series, where: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    if (text := column[numbers.isna() & column.notna()]).size:
        raise CxrnetError(
            f"{where}: column {column.name} holds '{text.iloc[0]}' ({len(text)} of {len(column)} rows), which is no "
            "number; give numbers"
        )
    return numbers.astype(np.float32 if str(column.name).startswith("logit_") else np.float64)


@contextmanager
def growing_file(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    """Write tables of predictions, one after the other, to a file; its ending is one of :data:`SUFFIXES`.

    The file is there when all are in it; where something goes wrong an older one stays as it was.

    Yields:
        A function that adds a table. All tables have the same columns.
    """
    grow = {".csv": _csv, ".parquet": _parquet}.get(path.suffix, _json)
    with whole_file(path) as partial, grow(partial) as add:
        yield add


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda table: to_csv(table, file, header=file.tell() == 0)


@contextmanager
def _json(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda table: file.writelines(json_lines(table))


def json_lines(table: pd.DataFrame) -> Iterator[str]:
    """Write each row as an object of JSON on a line of its own; an empty cell is ``null``."""
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        yield json.dumps(row, ensure_ascii=False) + "\n"


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    writer: pq.ParquetWriter | None = None

    def add(table: pd.DataFrame) -> None:
        nonlocal writer
        rows = pa.Table.from_pandas(table, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, rows.schema)
        writer.write_table(rows)

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()
