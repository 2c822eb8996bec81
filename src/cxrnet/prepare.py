"""``python -m cxrnet.prepare data=<option>``: split a data set and look at it; see ``conf/prepare.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Prepare


@entry_point(Prepare)
def main(config: DictConfig) -> None:
    """Prepare one data set; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.prepare import prepare

    hydra = HydraConfig.get()
    prepare(config, Path(hydra.runtime.output_dir), ["python", "-m", "cxrnet.prepare", *hydra.overrides.task])


if __name__ == "__main__":
    main()
