"""Make the pictures of the README: ``python scripts/readme_pictures.py outputs``.

docs/images/phantom_sheet.png   the embedded data set, one row a class
docs/images/report.png          the top of a run's report
docs/images/x_rays.png          its X-rays
docs/images/data_report.png     the top of the page of prepare on a data set
docs/images/mlflow.png          the newest runs side by side in MLflow's own pages
docs/images/mlflow_run.png      the metrics of the newest run there
docs/images/mlflow_sweep.png    the newest sweep there

All but the first are screenshots of headless Chromium, which must be installed.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from hydra.utils import instantiate
from PIL import Image

from cxrnet.cli.app import compose_config
from cxrnet.data.images.store import load_images
from cxrnet.reporting.plots.dataset import contact_sheet
from cxrnet.reporting.plots.style import save
from cxrnet.tracking.store import prepare_mlflow, tracking_uri
from cxrnet.workflows.settings import Train

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOOPBACK = "127.0.0.1"
PATIENCE = 120.0  # seconds for MLflow's server to answer; its first start is slow
DRAWING = 400_000  # milliseconds of a page's own clock until it has drawn what its scripts draw


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("outputs", type=Path, help="the folder that training writes to (with runs/ and mlflow.db)")
    parser.add_argument("--run", type=Path, help="the run whose report is shown; the newest one if not given")
    parser.add_argument("--page", type=Path, help="the data_report.html that is shown; the newest one if not given")
    arguments = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    phantom_sheet(PICTURES / "phantom_sheet.png", per_class=6)
    run = arguments.run or newest_run(arguments.outputs)
    screenshot((run / "report.html").resolve().as_uri(), PICTURES / "report.png", size=(1000, 1300))
    x_rays(run / "report.html", PICTURES / "x_rays.png")
    page = arguments.page or newest_page(arguments.outputs)
    screenshot(page.resolve().as_uri(), PICTURES / "data_report.png", size=(1000, 1300))
    mlflow_page(arguments.outputs, PICTURES / "mlflow.png", runs=4)
    for picture in sorted(PICTURES.glob("*.png")):
        print(f"{picture}  {picture.stat().st_size / 1000:.0f} kB")


def newest_run(outputs: Path) -> Path:
    """Find the folder of the run that wrote its report last, sweeps included."""
    reports = sorted(outputs.glob("*/**/report.html"), key=lambda path: path.stat().st_mtime)
    if not reports:
        sys.exit(f"no report below {outputs}; train first")
    return reports[-1].parent


def x_rays(report: Path, path: Path) -> None:
    """Photograph the X-rays of a report, which stand far below its top."""
    before, mark, after = report.read_text(encoding="utf-8").partition('<h2 id="x-rays">')
    if not mark:
        sys.exit(f"no X-rays in {report}; train with report.images=6")
    head, _, _ = before.partition("<body>")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.html"
        part.write_text(f"{head}<body><main>{mark}{after.partition('<h2')[0]}</main></body></html>", encoding="utf-8")
        screenshot(part.as_uri(), path, size=(1000, 1095))


def newest_page(outputs: Path) -> Path:
    """Find the page that prepare wrote last."""
    pages = sorted(outputs.glob("prepared/*/data_report.html"), key=lambda path: path.stat().st_mtime)
    if not pages:
        sys.exit(f"no data_report.html below {outputs}; run python -m cxrnet.prepare first")
    return pages[-1]


def phantom_sheet(path: Path, per_class: int) -> None:
    """Draw the data set that training uses by default, one image a patient."""
    config = compose_config(Train, ["data=phantom"])
    patients = instantiate(config.data.manifest)().drop_duplicates("patient_id")
    rows = patients.groupby("label").head(per_class).reset_index(drop=True)
    manifest, images = load_images(rows, (224, 224), "stretch", on_error="fail")
    classes = sorted(manifest["label"].unique())
    save(contact_sheet([list(images[manifest["label"] == name]) for name in classes], classes, ()), path)
    with Image.open(path) as sheet:
        small = sheet.convert("L").resize((900, round(900 * sheet.height / sheet.width)), Image.Resampling.LANCZOS)
    small.quantize(64).save(path, optimize=True)


def mlflow_page(outputs: Path, path: Path, runs: int) -> None:
    """Show the newest finished runs of the store below ``outputs`` on MLflow's page of comparison."""
    prepare_mlflow()
    from mlflow import MlflowClient

    uri = tracking_uri(f"sqlite:///{outputs / 'mlflow.db'}", outputs)
    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    finished = "attributes.status = 'FINISHED'"
    newest = client.search_runs(experiments, finished, max_results=runs)
    sweeps = client.search_runs(experiments, f"{finished} and attributes.run_name LIKE 'sweep %'", max_results=1)
    if not newest:
        sys.exit(f"no finished run in {outputs}/mlflow.db; train first")
    query = {
        "runs": json.dumps([run.info.run_id for run in newest]),
        "experiments": json.dumps(sorted({run.info.experiment_id for run in newest})),
    }
    with mlflow_server(uri) as address:
        # The panel of MLflow's assistant takes the right quarter of the window and is left out.
        page = f"{address}/#/compare-runs?{urlencode(query)}&workflowType=machine_learning"
        screenshot(page, path, size=(1600, 960), keep=1180)
        run = newest[0].info
        page = (
            f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}/model-metrics?workflowType=machine_learning"
        )
        screenshot(page, path.with_name("mlflow_run.png"), size=(1600, 960), keep=1180)
        for run in (sweep.info for sweep in sweeps):
            page = f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
            screenshot(page, path.with_name("mlflow_sweep.png"), size=(1600, 1290), keep=1180)


@contextmanager
def mlflow_server(uri: str) -> Iterator[str]:
    """Serve MLflow's pages on a free port of this machine, as long as the block lasts."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    command = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", LOOPBACK, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://{LOOPBACK}:{port}/health")
            yield f"http://{LOOPBACK}:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its workers too
            server.wait()


def wait_for(address: str) -> None:
    """Wait until a page answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"{address} did not answer in {PATIENCE:.0f} s")


def screenshot(address: str, path: Path, size: tuple[int, int], keep: int | None = None) -> None:
    """Photograph a page as Chromium shows it.

    Args:
        address: of the page.
        path: of the PNG.
        size: width and height of the window, pixels.
        keep: how many pixels of the width are kept, from the left; None: all.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser for the screenshots: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless",
            "--no-sandbox",  # a container's root cannot have the sandbox; the only pages opened are our own
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={DRAWING}",
            f"--screenshot={path}",
        ]
        subprocess.run([browser, *flags, address], check=True, capture_output=True, timeout=600)
    with Image.open(path) as picture:
        kept = picture.convert("RGB").crop((0, 0, keep or size[0], size[1]))
    kept.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
