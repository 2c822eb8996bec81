"""What a command tells MLflow of its run."""

import hashlib
import json
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxrnet.tracking.calls import LONGEST_PARAM, LONGEST_TAG, shortened
from cxrnet.tracking.record import RECORD
from cxrnet.tracking.sender import Sender

LONGEST_KEY = 250  # characters, of MLflow 3.17
LOGGED = (".png", ".html", ".md", ".txt", ".json", ".csv", ".parquet")


class TrackedRun:
    """What a command tells MLflow. Made by :func:`cxrnet.tracking.run.track`.

    No method waits for MLflow or raises because of it: each writes a line into the outbox of the run's folder, which is
    sent from there (:mod:`cxrnet.tracking.sender`). Without tracking, or on a process that is not the first of a
    distributed training, the methods do nothing.

    Attributes:
        folder: the folder of the run on disk.
        run_id: MLflow's name of the run; None without tracking.
    """

    def __init__(self, folder: Path, run_id: str | None = None, sender: Sender | None = None) -> None:
        self.folder = folder
        self.run_id = run_id
        self._sender = sender

    @property
    def unsent(self) -> int:
        """Calls that have not reached MLflow (yet)."""
        return self._sender.unsent if self._sender else 0

    @property
    def refused(self) -> list[str]:
        """Calls that MLflow has refused for good, and why."""
        return self._sender.refused if self._sender else []

    def close(self, patience: float, at_most: float) -> None:
        """Give what waits the time to arrive; arguments as :meth:`cxrnet.tracking.sender.Sender.close`."""
        if self._sender:
            self._sender.close(patience, at_most)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the resolved config, flat (``{"model.name": "resnet50"}``); a longer value than MLflow takes is cut.

        MLflow never changes a parameter: in a resumed run only new ones are logged, and what differs is written to
        the tag ``cxrnet.param_drift``.
        """
        self._add("params", values={_key(name): shortened(str(value), LONGEST_PARAM) for name, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step; those that were logged before, when the run was begun, are not logged again.

        Args:
            metrics: a name that MLflow does not take is written in another way, see :func:`_key`.
            step: the epoch, running on across phases.
        """
        if self._sender is None:
            return
        values = {_key(name): float(value) for name, value in metrics.items()}
        if new := self._sender.new_points(values, step):
            self._add("metrics", values=new, step=step)

    def set_tags(self, tags: Mapping[str, object], of: str | None = None) -> None:
        """Set tags, of this run or of another one; a longer value than MLflow takes is cut."""
        values = {_key(name): shortened(str(value), LONGEST_TAG) for name, value in tags.items()}
        self._add("tags", values=values, of=of)

    def set_status(self, status: str) -> None:
        """Say that the run goes on (RUNNING) or how it ended (FINISHED, FAILED, KILLED), and now."""
        self._add("status", status=status)

    def log_error(self, text: str) -> None:
        """Log why the run failed, as ``error.txt``."""
        self._add("text", name="error.txt", text=text)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or the files of a folder, under its own name, in a folder of the run's artifacts.

        They must stay in place until they have arrived.
        """
        if not path.is_dir():
            self._add("artifact", path=self._place(path), folder=folder)
            return
        for file in sorted(path.rglob("*")):
            if file.is_file():
                above = posixpath.join(folder or "", path.name, file.parent.relative_to(path).as_posix())
                self._add("artifact", path=self._place(file), folder=posixpath.normpath(above))

    def log_results(self, folder: Path) -> None:
        """Log every table, text, figure and page that lies in a folder."""
        for path in sorted(folder.iterdir()):
            if path.suffix in LOGGED and path.name != RECORD:
                self.log_artifact(path)

    def log_bundle(self, folder: Path, classes: Sequence[str], refers: bool = False) -> None:
        """Log a bundle as the model ``bundle`` of the run; the tag ``cxrnet.model_uri`` has its address in MLflow.

        Args:
            folder: the bundle; must stay in place until it has arrived.
            classes: in the order of the bundle.
            refers: whether it leaves predictions to a reader.
        """
        self._add("model", path=self._place(folder), classes=list(classes), refers=refers)

    def log_dataset(self, name: str, digest: str, source: str, counts: Mapping[str, object], context: str) -> None:
        """Log a manifest as a dataset input.

        Args:
            name: of the data (``"covid19_image"``).
            digest: of the manifest. MLflow's own field takes the first 36 digits; the tag
                ``cxrnet.data.digest.<context>`` has all.
            source: where the data come from: a folder or an address.
            counts: images in each split and class, or whatever tells the size.
            context: ``"training"`` or ``"evaluation"``.
        """
        told = {"name": name, "digest": digest, "source": source, "profile": json.dumps(counts), "context": context}
        self._add("dataset", **told)
        self.set_tags({f"cxrnet.data.digest.{context}": digest})

    def _add(self, kind: str, **arguments: object) -> None:
        if self._sender:
            self._sender.add(kind, arguments)

    def _place(self, path: Path) -> str:
        """Where a file lies, from the run's folder on if it is in there: the folder may be moved."""
        path, folder = path.resolve(), self.folder.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _key(name: str) -> str:
    """The name of a metric, parameter or tag in MLflow, readable and another one for every name.

    The name of a class may hold anything. MLflow takes at most 250 letters, digits and ``_-. /`` (and ``:``, but not on
    Windows), and what would be the same as the path of a file. Other characters become ``_``, and a short hash of them
    and their places, counted from the end, is added: all metrics of a class get the same one, in every run.
    """
    name = unicodedata.normalize("NFC", name)  # in folders on macOS an umlaut is two characters
    fitting = re.sub(r"[^/\w.\- ]", "_", name)
    if fitting != posixpath.normpath(fitting) or fitting.startswith(("/", "..")):
        fitting = re.sub(r"[/.]", "_", fitting)
    changed: object = [(place, name[place]) for place in range(-len(name), 0) if name[place] != fitting[place]]
    if not changed and len(name) <= LONGEST_KEY:
        return name
    beginning = fitting[: LONGEST_KEY - 9]
    if beginning != fitting:
        changed = name
    return f"{beginning}_{hashlib.sha256(repr(changed).encode(errors='surrogatepass')).hexdigest()[:8]}"
