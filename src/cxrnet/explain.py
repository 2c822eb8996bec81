"""``python -m cxrnet.explain bundle=<folder> input=<file or folder>``: what a model looks at, as pictures."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Explain


@entry_point(Explain)
def main(config: DictConfig) -> None:
    """Write the pictures; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.explain import explain

    explain(config, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
