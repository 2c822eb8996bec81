"""What a configuration asks for is refused here where it can't be done, before anything heavy is imported."""

from hydra.utils import instantiate

from cxrnet.cli.app import config_folder
from cxrnet.cli.hydra_errors import NO_MODE
from cxrnet.core.config import Config
from cxrnet.data.settings import check_numbers
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import check_settings, check_share
from cxrnet.training.schedule import check_precision
from cxrnet.workflows.added_keys import check_added_keys


def check_config(config: Config) -> None:
    """Refuse what can be told by the configuration alone, before anything heavy is imported.

    Raises:
        CxrnetError: a number of the groups data, schedule or evaluation, the seed or the precision won't do, a key is
            added that nothing reads, the trainer shall be exact and try what is fastest, batches of one meet batch
            norms, or it is not said which class one logit is of.
    """
    seed = config["seed"]
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise CxrnetError(f"seed: {seed} is no seed; give a whole number from 0 to 2147483647")
    trainer = config["trainer"]
    # What `auto` comes to is known to torch alone: cxrnet.workflows.build.check_trainer sees that.
    check_precision(trainer.get("precision", "32-true"), on_cpu=trainer.get("accelerator") == "cpu")
    if trainer.get("deterministic") and trainer.get("benchmark"):
        raise CxrnetError("trainer.deterministic: not while trainer.benchmark=true; give trainer.benchmark=false")
    if not isinstance(config["compile"], bool):
        raise CxrnetError(f"compile: {config['compile']} is neither true nor false")
    data = config["data"]
    check_numbers(data["size"], data["batch_size"], data["sampler"], data["num_workers"], data["limit"])
    if data["batch_size"] == 1 and config["model"]["batch_norm"] is True:
        raise CxrnetError(
            "data.batch_size: 1, but the batch norms of the head (model.batch_norm=true) need several images; give "
            "data.batch_size=2 or more, or model.batch_norm=false"
        )
    check_settings(config["evaluation"])
    check_share(config["refer"])
    if "mode" in config["schedule"]:
        raise CxrnetError(NO_MODE)
    check_added_keys(config, config_folder(), "train")
    instantiate(config["schedule"], _convert_="object")  # which refuses what is none
    if config["model"]["output"] == "sigmoid" and config["data"]["classes"] is None:
        # Not left to the alphabet.
        raise CxrnetError(
            "data.classes: model.output=sigmoid needs to know the positive class; give [negative, positive]"
        )
