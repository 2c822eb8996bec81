"""The group ``trainer``: arguments of Lightning's Trainer, and what to give in place of those that are refused.

What the schedule, the data or cxrnet itself decides would be ignored, or would make the numbers of a run those of
something else. It is refused before anything heavy is imported, so the arguments stand here by name.
"""

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError

# Others train in processes of which the first learns nothing, or need libraries of their own.
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "fsdp"]


@dataclass(frozen=True)
class Trainer:
    """The group ``trainer``; what a line doesn't explain is Lightning's own.

    Attributes:
        accelerator: auto, cpu or gpu.
        devices: a number, a list of them, or auto.
        precision: 32-true, 16-mixed or bf16-mixed; evaluation is always 32-true.
        benchmark: cuDNN tries its algorithms on the first batch of a size and keeps the fastest.
        deterministic: true, false or warn; true wants benchmark=false beside it.
        strategy: ddp trains one process a device; fsdp too, with weights and optimizer divided among them.
        num_nodes: number of machines; torchrun or srun starts the processes on them.
    """

    _target_: str = "lightning.pytorch.Trainer"
    _partial_: bool = True
    accelerator: str = "auto"
    devices: Any = 1
    precision: Any = "32-true"
    benchmark: bool | None = True
    deterministic: Any = None
    strategy: Strategy = "auto"
    num_nodes: int = 1
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    log_every_n_steps: int | None = None
    profiler: Any = None
    detect_anomaly: bool = False
    inference_mode: bool = True
    enable_autolog_hparams: bool = True

    def __post_init__(self) -> None:
        """Refuse what is out of range, or doesn't go together.

        Raises:
            CxrnetError: something does.
        """
        steps, clip, logged = self.accumulate_grad_batches, self.gradient_clip_val, self.log_every_n_steps
        need(steps > 0, "trainer.accumulate_grad_batches", steps, "a whole number from 1 on")
        need(clip is None or clip >= 0, "trainer.gradient_clip_val", clip, "a number from 0 on, or null")
        need(logged is None or logged >= 0, "trainer.log_every_n_steps", logged, "a whole number from 0 on, or null")
        need(self.num_nodes > 0, "trainer.num_nodes", self.num_nodes, "a whole number from 1 on")
        exact, devices, profiler = self.deterministic, self.devices, self.profiler
        known = exact is None or isinstance(exact, bool) or exact == "warn"
        need(known, "trainer.deterministic", exact, "true, false or warn")
        if isinstance(devices, str):
            known = bool(re.fullmatch(r"auto|-1|\d+(,\d+)*", devices))
        elif isinstance(devices, list):
            known = bool(devices) and all(type(each) is int and each >= 0 for each in devices)
        else:
            known = type(devices) is int and (devices > 0 or devices == -1)
        need(known, "trainer.devices", devices, "a number from 1 on, a list of devices, or auto")
        need(isinstance(profiler, str | dict | None), "trainer.profiler", profiler, "simple, advanced or null")
        if exact and self.benchmark:
            raise CxrnetError("trainer.deterministic: not while trainer.benchmark=true; give trainer.benchmark=false")


_LESS_DATA = "an epoch has all images of its split; for fewer give data.limit"
_WHOLE_EPOCHS = "a phase trains for whole epochs; give schedule.max_epochs"
_VALIDATION = "every epoch is validated once, at its end, for the history and the choice of the best one; leave it out"

REFUSED = {
    "callbacks": "give callbacks=<option>, or +callbacks.<name>={_target_: <class>} for one of your own",
    "logger": "give logger=<option>, or +logger.<name>={_target_: <class>} for one of your own",
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
    "use_distributed_sampler": "cxrnet shares out the training images itself, none of them twice; leave it out",
    "reload_dataloaders_every_n_epochs": "every epoch has an order of its own as it is; leave it out",
    "sync_batchnorm": "batch norms see the images of all devices as it is; leave it out",
    "plugins": "precision and checkpoints are cxrnet's to set; give trainer.precision",
}


def refusal(name: str) -> str:
    """Say in one line why an argument that :class:`Trainer` lacks is refused, and what to give in its place."""
    if name in REFUSED:
        return f"trainer.{name}: {REFUSED[name]}"
    known = [each.name for each in fields(Trainer)]
    alike = next(iter(get_close_matches(name, [*known, *REFUSED], 1)), None)
    hint = "leave it out" if alike is None else f"{alike}: {REFUSED[alike]}" if alike in REFUSED else ""
    return f"trainer.{name}: a Trainer has no such argument; {hint or f'did you mean trainer.{alike}?'}"
