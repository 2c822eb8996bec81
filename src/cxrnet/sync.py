"""``python -m cxrnet.sync [folder ...]``: send MLflow what it has not got; see ``conf/sync.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.config import plain_config
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Sync


def _arguments(words: list[str]) -> list[str]:
    """Write the folders as the list that Hydra reads."""
    folders = [word for word in words if not word.startswith("-") and ("=" not in word or Path(word).is_dir())]
    if not folders:
        return words
    quoted = ",".join("'{}'".format(folder.replace("'", r"\'")) for folder in folders)
    return [*(word for word in words if word not in folders), f"folders=[{quoted}]"]


@entry_point(Sync, _arguments)
def main(config: DictConfig) -> None:
    """Send what is left; the exit status is 1 where something still is."""
    with quick_imports():
        from cxrnet.tracking.sync import sync

    plain = plain_config(config)
    folders = plain["folders"] or [plain["outputs"]]
    if not sync([Path(folder) for folder in folders]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
