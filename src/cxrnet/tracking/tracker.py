"""The run of a command, and what it logs to MLflow."""

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.names import FOLDERS, LONGEST_PARAM, LONGEST_TAG, artifact_folder, safe_key, shortened
from cxrnet.tracking.record import RECORD
from cxrnet.tracking.sender import Sender

if TYPE_CHECKING:
    import pandas as pd

TABLE = "tables/all_metrics.json"


class TrackedRun:
    """A run as MLflow is told of it; made by :func:`cxrnet.tracking.run.track`.

    No method waits for MLflow or raises because of it: each writes a line into the outbox of the run's folder, which is
    sent from there (:mod:`cxrnet.tracking.sender`). Without tracking, or on a process that is not the first of a
    distributed training, the methods do nothing.

    Attributes:
        folder: of the run on disk.
        run_id: of the run in MLflow; ``None`` without tracking.
    """

    def __init__(self, folder: Path, run_id: str | None = None, sender: Sender | None = None) -> None:
        self.folder = folder
        self.run_id = run_id
        self._sender = sender

    @property
    def unsent(self) -> int:
        """Calls that have not reached MLflow (yet)."""
        return self._sender.outbox.waiting if self._sender else 0

    @property
    def refused(self) -> list[str]:
        """Calls that MLflow has refused for good, and why."""
        return self._sender.outbox.refused if self._sender else []

    def close(self, patience: float, at_most: float) -> None:
        """Give what waits the time to arrive; arguments as :meth:`cxrnet.tracking.sender.Sender.close`."""
        if self._sender:
            self._sender.close(patience, at_most)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the resolved config, flat (``{"model.name": "resnet50"}``); a longer value than MLflow takes is cut.

        MLflow never changes a parameter: in a resumed run only new ones are logged, and what differs is written to
        the tag ``cxrnet.param_drift``.
        """
        values = {safe_key(name): shortened(str(value), LONGEST_PARAM) for name, value in params.items()}
        self._add("params", values=values)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step; those that were logged before, when the run was begun, are not logged again.

        Args:
            metrics: by name (:func:`cxrnet.tracking.names.safe_key`).
            step: the epoch, running on across phases.
        """
        if self._sender is None:
            return
        values = {safe_key(name): float(value) for name, value in metrics.items()}
        if new := self._sender.outbox.new_points(values, step):
            self._add("metrics", values=new, step=step)

    def set_tags(self, tags: Mapping[str, object], of: str | None = None) -> None:
        """Set tags, of this run or of another one; a longer value than MLflow takes is cut."""
        values = {safe_key(name): shortened(str(value), LONGEST_TAG) for name, value in tags.items()}
        self._add("tags", values=values, of=of)

    def set_status(self, status: str) -> None:
        """Say that the run goes on (RUNNING) or how it ended (FINISHED, FAILED, KILLED), and now."""
        self._add("status", status=status)

    def log_error(self, text: str) -> None:
        """Log why the run failed, as ``error.txt``."""
        self._add("text", name="error.txt", text=text)

    def log_artifact(self, path: Path, below: str = "") -> None:
        """Log a file into the folder of its kind, ``plots/roc.png``; it must stay in place until it has arrived.

        Args:
            path: of the file.
            below: a folder within that of the kind.
        """
        folder = posixpath.normpath(posixpath.join(artifact_folder(path.name), below))
        self._add("artifact", path=self._place(path), folder=None if folder == "." else folder)

    def log_results(self, folder: Path, below: str = "") -> None:
        """Log every table, text, plot and page that lies in a folder; arguments as :meth:`log_artifact`."""
        for path in sorted(folder.iterdir()):
            if path.suffix in FOLDERS and path.name != RECORD:
                self.log_artifact(path, below)

    def log_page(self, metrics: Mapping[str, float], table: "pd.DataFrame", description: str, step: int = 0) -> None:
        """Log what the run's page in MLflow shows of a result (:mod:`cxrnet.reporting.run_page`).

        Args:
            metrics: by name.
            table: all metrics, for MLflow's comparison of tables over runs.
            description: Markdown, the text on top of the page.
            step: of the metrics. MLflow draws bars with their values at step 0, and a line of one point at any other.
        """
        self.log_metrics(metrics, step)
        # As MlflowClient.log_table writes it, which would add the rows again where it is sent twice.
        self._add("text", name=TABLE, text=table.to_json(orient="split", index=False))
        listed = json.dumps([{"path": TABLE, "type": "table"}])
        self.set_tags({"mlflow.loggedArtifacts": listed, "mlflow.note.content": description})

    def log_bundle(self, folder: Path, classes: Sequence[str], defers: bool = False) -> None:
        """Log a bundle as the model ``bundle`` of the run; the tag ``cxrnet.model_uri`` has its address in MLflow.

        Args:
            folder: the bundle; must stay in place until it has arrived.
            classes: in the order of the bundle.
            defers: whether it defers predictions.
        """
        self._add("model", path=self._place(folder), classes=list(classes), defers=defers)

    def log_dataset(self, name: str, digest: str, source: str, counts: Mapping[str, object], context: str) -> None:
        """Log a manifest as a dataset input.

        Args:
            name: of the data (``"covid19_image"``).
            digest: of the manifest. MLflow's own field takes the first 36 digits; the tag
                ``cxrnet.data.digest.<context>`` has all.
            source: a folder or an address.
            counts: images in each split and class.
            context: ``"training"`` or ``"evaluation"``.
        """
        told = {"name": name, "digest": digest, "source": source, "profile": json.dumps(counts), "context": context}
        self._add("dataset", **told)
        self.set_tags({f"cxrnet.data.digest.{context}": digest})

    def _add(self, kind: str, **arguments: object) -> None:
        if self._sender:
            self._sender.add(kind, arguments)

    def _place(self, path: Path) -> str:
        """Return where a file lies, from the run's folder on if it is in there: the folder may be moved."""
        path, folder = path.resolve(), self.folder.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
