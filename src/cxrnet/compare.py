"""``python -m cxrnet.compare runs=[...] | mlflow_experiment=<name> | sweep=<folder>``; see ``conf/compare.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Compare


def _arguments(words: list[str]) -> list[str]:
    """Refuse ``experiment=``, which Hydra would take for a preset of training."""
    if asked := [word for word in words if word.lstrip("+").startswith("experiment=")]:
        raise CxrnetError(f"{asked[0]}: no such key; did you mean mlflow_{asked[0].lstrip('+')}?")
    return words


@entry_point(Compare, _arguments)
def main(config: DictConfig) -> None:
    """Compare runs; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.compare import compare_runs

    hydra = HydraConfig.get()
    command = ["python", "-m", "cxrnet.compare", *hydra.overrides.task]
    compare_runs(config, Path(hydra.runtime.output_dir), command)


if __name__ == "__main__":
    main()
