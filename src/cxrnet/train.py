"""``python -m cxrnet.train [group=option] [key=value]``: train, evaluate and report; see ``conf/train.yaml``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.console import quiet_libraries
from cxrnet.core.process import quick_imports
from cxrnet.training.schedule import check_finetune
from cxrnet.workflows.folds_and_seeds import check_repeats
from cxrnet.workflows.resume import COMMAND, resumed_arguments, without_resume
from cxrnet.workflows.settings import Train
from cxrnet.workflows.start import start


@entry_point(Train, resumed_arguments)
def main(config: DictConfig) -> float:
    """Run one experiment; the heavy imports wait until the configuration is known to be sound."""
    hydra = HydraConfig.get()
    command = [*COMMAND, *without_resume(hydra.overrides.task)]
    name = f"{hydra.runtime.choices['model']}_{hydra.runtime.choices['data']}"
    folder = Path(hydra.runtime.output_dir)
    plain, resumed = start(config, folder, command, in_sweep=hydra.mode == RunMode.MULTIRUN)
    check_finetune(config["finetune"], config["schedule"])
    repeats = check_repeats(plain)
    with quick_imports():
        from cxrnet.workflows.train import run_experiment
    quiet_libraries()
    return run_experiment(config, plain, repeats, folder, name, command, resumed)


if __name__ == "__main__":
    main()
