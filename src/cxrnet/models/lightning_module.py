"""The Lightning module around a network: trains its trainable parameters and logs the metrics of every epoch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
    MulticlassRecall,
    MulticlassSpecificity,
)

from cxrnet.models.freezing import frozen_names
from cxrnet.models.network import Network
from cxrnet.models.processes import whole_batch

Batch = dict[str, Any]

_RUNNING = "epoch_metrics"  # in a checkpoint


class Classifier(pl.LightningModule):
    """Trains the trainable parameters of a network.

    A batch holds ``label`` (B,) int64 and either ``image`` (B, 1, H, W) uint8 or ``features``, the output of the frozen
    trunk; of several processes each holds its share, and ``total``, the number of images in the whole batch. Loss and
    metrics are of the whole batch, in every process.

    It logs every epoch what :func:`metric_names` lists. Both losses include ``Network.penalty``, as in Keras, so that
    the two curves show the same quantity. ``roc_auc_macro`` is the mean one-vs-rest area,
    ``cosine_similarity`` the mean over images of that between the probabilities and the one-hot label.

    Args:
        network: trained in place; what is frozen stays as :func:`cxrnet.models.freezing.set_trainable` left it.
        loss: takes logits (B, K) and labels (B,).
        optimizer: makes an optimizer of parameters; only trainable ones are handed to it.
        lr_schedule: makes Lightning's ``lr_scheduler`` dictionary of an optimizer; ``None`` keeps the rate.
        trainable_part: makes logits (B, K) of ``features``, see :mod:`cxrnet.models.freezing`; ``None`` takes the
            head, whose features are (B, F).
    """

    def __init__(
        self,
        network: Network,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        lr_schedule: Callable[[Optimizer], dict[str, Any]] | None = None,
        trainable_part: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.trainable_part = trainable_part
        n_classes = len(network.config.classes)
        # Labels and probabilities are our own; checking them makes the CPU wait for the device in every step.
        # Every process has the whole batch, so no metric puts processes together.
        kind: dict[str, Any] = {"num_classes": n_classes, "validate_args": False, "sync_on_compute": False}
        overall = MetricCollection(
            {"accuracy": MulticlassAccuracy(average="micro", **kind), "roc_auc_macro": MulticlassAUROC(**kind)}
        )
        self.train_loss = MeanMetric(nan_strategy="disable", sync_on_compute=False)  # which keeps them
        self.train_metrics = overall.clone(prefix="train/")
        self.val_metrics = overall.clone(prefix="val/")
        self.val_metrics.add_metrics(
            {"balanced_accuracy": MulticlassAccuracy(**kind), "macro_f1": MulticlassF1Score(**kind)}
        )
        self.val_sensitivity = MulticlassRecall(average="none", **kind)
        self.val_specificity = MulticlassSpecificity(average="none", **kind)
        self._val_outputs: list[tuple[Tensor, Tensor]] = []
        self.strict_loading = False  # a checkpoint of a phase holds what the phase trains

    def configure_model(self) -> None:
        """Divide the weights among the processes, where the strategy is to."""
        if self.device_mesh is not None:
            fully_shard(self, mesh=self.device_mesh["data_parallel"])

    def forward(self, batch: Batch) -> Tensor:
        """Compute logits (B, K) from images or from features."""
        if "features" in batch:
            trained = self.network.head if self.trainable_part is None else self.trainable_part
            return trained(batch["features"])
        return self.network(batch["image"])  # type: ignore[no-any-return]

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the loss of a batch."""
        logits, labels = self._whole(batch)
        loss, penalty = self.loss(logits, labels), self.network.penalty()
        # Logged once an epoch: logging in every step took a third of a step on features.
        self.train_loss.update((loss + penalty).detach(), len(logits))
        self.train_metrics.update(_probabilities(logits), labels)
        # The strategy takes the mean of the gradients of all processes, and each has those of its own images alone.
        return self.trainer.world_size * loss + penalty  # type: ignore[no-any-return]

    def validation_step(self, batch: Batch) -> None:
        """Add a batch to the validation metrics, without mixed precision whatever the precision of training."""
        with torch.autocast(self.device.type, enabled=False):
            logits, labels = self._whole(batch)
            self._penalty = self.network.penalty()  # here all of a sharded network is together
        probabilities = _probabilities(logits)
        self.val_metrics.update(probabilities, labels)
        self.val_sensitivity.update(probabilities, labels)
        self.val_specificity.update(probabilities, labels)
        self._val_outputs.append((logits.float(), labels))  # of mixed precision only the steps know

    def _whole(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the logits (N, K) and take the labels (N,) of the whole batch."""
        logits, labels = self(batch), batch["label"]
        if self.trainer.world_size == 1:
            return logits, labels
        return whole_batch(logits, batch["total"]), whole_batch(labels, batch["total"])

    def on_validation_epoch_start(self) -> None:
        """Log the loss and the metrics of the training epoch, which ends with a validation."""
        # A hook at the end of the training epoch would come after those of callbacks.
        if self.train_loss.update_called:
            self.log_dict({"train/loss": self.train_loss.compute(), **self.train_metrics.compute()})
            self.train_loss.reset()
            self.train_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the validation metrics of the epoch."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._val_outputs, strict=True))
        self._val_outputs.clear()
        # Of all images at once: with class weights a mean over batches would depend on who shares a batch with whom.
        # Every process has them all, so nothing is averaged over processes.
        self.log("val/loss", self.loss(logits, labels) + self._penalty, sync_dist=False)
        classes = self.network.config.classes
        one_hot = F.one_hot(labels, len(classes))
        self.log("val/cosine_similarity", F.cosine_similarity(_probabilities(logits), one_hot).mean())
        self.log_dict(self.val_metrics.compute())
        for name, metric in (("sensitivity", self.val_sensitivity), ("specificity", self.val_specificity)):
            self.log_dict({f"val/{name}/{c}": v for c, v in zip(classes, metric.compute(), strict=True)})
            metric.reset()
        self.val_metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen: with a large backbone, writing it every epoch took longer than training a head.

        Within an epoch its metrics so far are kept too; torchmetrics leaves them out of ``state_dict``.
        """
        frozen = {f"network.{name}" for name in frozen_names(self.network)}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name not in frozen}
        if self.train_loss.update_called:
            checkpoint[_RUNNING] = [metric.metric_state for metric in self._of_training()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the metrics of an epoch that is resumed in its middle."""
        for metric, state in zip(self._of_training(), checkpoint.get(_RUNNING, []), strict=False):
            for name, value in state.items():
                moved = [v.to(self.device) for v in value] if isinstance(value, list) else value.to(self.device)
                setattr(metric, name, moved)
            metric._update_count = 1  # else torchmetrics says that there is nothing to compute

    def _of_training(self) -> list[Metric]:
        return [self.train_loss, *self.train_metrics.values(copy_state=False)]

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own type is a union of ten)
        """Make an optimizer for the trainable parameters, with its learning-rate schedule if there is one."""
        optimizer = self.optimizer(p for p in self.network.parameters() if p.requires_grad)
        if self.lr_schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.lr_schedule(optimizer)}


def metric_names(classes: Sequence[str]) -> tuple[str, ...]:
    """List what a classifier logs every epoch, and what can therefore be monitored."""
    overall = ("loss", "accuracy", "roc_auc_macro")
    of_val = (*overall, "balanced_accuracy", "macro_f1", "cosine_similarity")
    per_class = (f"{metric}/{name}" for metric in ("sensitivity", "specificity") for name in classes)
    return (*(f"val/{name}" for name in (*of_val, *per_class)), *(f"train/{name}" for name in overall))


def _probabilities(logits: Tensor) -> Tensor:
    # torchmetrics guesses from the range whether it was given logits, batch by batch; probabilities leave no guess.
    return torch.softmax(logits.detach().float(), dim=1)
