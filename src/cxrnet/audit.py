"""``python -m cxrnet.audit bundle=<run> [data=<option>]``: what a model looks at; see ``conf/audit.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.evaluate import hydra_words
from cxrnet.workflows.settings import Audit


@entry_point(Audit, hydra_words)
def main(config: DictConfig) -> None:
    """Audit one bundle; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.audit import audit

    hydra = HydraConfig.get()
    command = ["python", "-m", "cxrnet.audit", *hydra.overrides.task]
    audit(config, Path(hydra.runtime.output_dir), hydra.runtime.choices["data"], command)


if __name__ == "__main__":
    main()
