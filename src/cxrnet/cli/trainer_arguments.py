"""Which arguments of Lightning's Trainer a configuration may give, and what to give in the place of the others.

What the schedule, the data or cxrnet itself decides would be ignored, or would make the numbers of a run those of
something else. It is refused before anything heavy is imported, so the arguments are listed here by name.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from cxrnet.errors import CxrnetError

USED = (
    "accelerator", "accumulate_grad_batches", "benchmark", "callbacks", "detect_anomaly", "deterministic", "devices",
    "enable_autolog_hparams", "gradient_clip_algorithm", "gradient_clip_val", "inference_mode", "log_every_n_steps",
    "logger", "precision", "profiler", "strategy",
)  # fmt: skip

_LESS_DATA = "an epoch has all images of its split; for fewer give data.limit"
_WHOLE_EPOCHS = "a phase trains for whole epochs; give schedule.max_epochs"
_VALIDATION = "every epoch is validated once, at its end, for the history and the choice of the best one; leave it out"

REFUSED = {
    "max_epochs": "the schedule says how long each phase trains; give schedule.max_epochs",
    "min_epochs": "the schedule says when a phase stops early; give its phases another patience, or null",
    "max_steps": _WHOLE_EPOCHS,
    "min_steps": _WHOLE_EPOCHS,
    "max_time": "a run that is stopped goes on with resume=<its folder>; for fewer epochs give schedule.max_epochs",
    "limit_train_batches": _LESS_DATA,
    "limit_val_batches": _LESS_DATA,
    "limit_test_batches": _LESS_DATA,
    "limit_predict_batches": _LESS_DATA,
    "overfit_batches": _LESS_DATA,
    "fast_dev_run": "to see whether a run works give trainer=debug",
    "barebones": "cxrnet needs the metrics and checkpoints that it switches off; leave it out",
    "val_check_interval": _VALIDATION,
    "check_val_every_n_epoch": _VALIDATION,
    "num_sanity_val_steps": "the metrics of a sanity check would stand among the results; leave it out",
    "enable_checkpointing": "a run always keeps the checkpoints that it goes on from; leave it out",
    "enable_progress_bar": "cxrnet shows a bar of its own, on a terminal only; leave it out",
    "enable_model_summary": "the console and the report tell what is trained; leave it out",
    "default_root_dir": "everything is written to the run's folder; give hydra.run.dir",
    "model_registry": "the trained model is kept as the run's bundle, and in MLflow; leave it out",
    "num_nodes": "a run trains on one machine; give trainer.devices",
    "use_distributed_sampler": "cxrnet shares out the training images itself, none of them twice; leave it out",
    "reload_dataloaders_every_n_epochs": "every epoch has an order of its own as it is; leave it out",
    "sync_batchnorm": "batch norms see the images of one device; give a larger data.batch_size",
    "plugins": "precision and checkpoints are cxrnet's to set; give trainer.precision",
}

# Others divide the weights among the processes, or train in processes of which the first learns nothing.
STRATEGIES: tuple[object, ...] = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")

_CHOICES: dict[str, tuple[object, ...]] = {
    "strategy": STRATEGIES,
    "deterministic": (True, False, "warn", None),
    "benchmark": (True, False, None),
    "detect_anomaly": (True, False),
    "inference_mode": (True, False),
}
_LEAST = {"accumulate_grad_batches": 1, "log_every_n_steps": 0, "gradient_clip_val": 0}
_MAY_BE_NULL = ("log_every_n_steps", "gradient_clip_val")


def check_arguments(trainer: Mapping[str, object]) -> None:
    """Refuse arguments that would be ignored, can't be kept to, or that no Trainer knows.

    Args:
        trainer: the group ``trainer`` of a configuration, plain.

    Raises:
        CxrnetError: there is one, or a value that won't do; the line says what to give in its place.
    """
    own = not str(trainer.get("_target_")).startswith("lightning.pytorch.")  # a class that may know more
    for name, value in trainer.items():
        if name.startswith("_") or (own and name not in REFUSED):
            continue
        if (reason := refusal(name)) is not None:
            raise CxrnetError(reason)
        if name in _CHOICES and value not in _CHOICES[name]:
            choices = ", ".join("null" if each is None else str(each).lower() for each in _CHOICES[name])
            raise CxrnetError(f"trainer.{name}: {value} won't do; give one of {choices}")
        if name in _LEAST and not (value is None and name in _MAY_BE_NULL):
            _check_number(name, value)


def refusal(name: str) -> str | None:
    """Why ``trainer.<name>`` is refused and what to do, in one line; ``None`` if it isn't."""
    if name in USED:
        return None
    if name in REFUSED:
        return f"trainer.{name}: {REFUSED[name]}"
    alike = next(iter(get_close_matches(name, (*USED, *REFUSED), 1)), None)
    if alike is None:
        return f"trainer.{name}: Lightning's Trainer has no such argument; leave it out"
    hint = f"{alike}: {REFUSED[alike]}" if alike in REFUSED else f"did you mean trainer.{alike}?"
    return f"trainer.{name}: Lightning's Trainer has no such argument; {hint}"


def _check_number(name: str, value: object) -> None:
    whole, least = name != "gradient_clip_val", _LEAST[name]
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value >= least:
        raise CxrnetError(f"trainer.{name}: {value}; give a {'whole ' * whole}number from {least} on")
