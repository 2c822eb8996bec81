"""``python -m cxrnet.train [group=option] [key=value]``: train, evaluate and report; see ``conf/train.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.app import entry_point
from cxrnet.resume import COMMAND, resumed_arguments, without_resume


@entry_point("train", resumed_arguments)
def main(config: DictConfig) -> float:
    """Run one experiment; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cxrnet.experiment import run_experiment

    hydra = HydraConfig.get()
    command = [*COMMAND, *without_resume(hydra.overrides.task)]
    name = f"{hydra.runtime.choices['model']}_{hydra.runtime.choices['data']}"
    in_sweep = hydra.mode == RunMode.MULTIRUN
    return run_experiment(config, Path(hydra.runtime.output_dir), name, command, in_sweep)


if __name__ == "__main__":
    main()
