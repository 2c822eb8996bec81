"""``python -m cxrnet.train [group=option] [key=value]``: train, evaluate and report; see ``conf/train.yaml``."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.console import quiet_libraries
from cxrnet.core.process import quick_imports
from cxrnet.training.schedule import check_finetune
from cxrnet.workflows.resume import resumed_arguments
from cxrnet.workflows.run_context import begin, finished_score, part_configs
from cxrnet.workflows.settings import Train


@entry_point(Train, resumed_arguments)
def main(config: DictConfig) -> float | str:
    """Run one experiment; the heavy imports wait until the configuration is known to be sound."""
    hydra = HydraConfig.get()
    if (score := finished_score(config, hydra)) is not None:
        return score
    run = begin(config, hydra)
    check_finetune(config["finetune"], config["schedule"])
    parts = part_configs(config)
    with quick_imports():
        from cxrnet.workflows.train import train
    quiet_libraries()
    return train(run, parts)


if __name__ == "__main__":
    main()
