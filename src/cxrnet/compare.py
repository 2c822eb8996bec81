"""``python -m cxrnet.compare runs=[...] | experiment=<name> | sweep=<folder>``; see ``conf/compare.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Compare


def _arguments(words: list[str]) -> list[str]:
    """Keep Hydra from taking ``experiment=`` for a choice of ``conf/experiment/``."""
    return [f"mlflow_{word.lstrip('+')}" if word.lstrip("+").startswith("experiment=") else word for word in words]


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
