import io
from functools import partial

import lightning.pytorch as pl
import pytest
import rich
import torch
from rich.console import Console
from torch import nn

from cxrnet.models.lightning_module import Classifier
from cxrnet.training.callbacks import PhaseProgress

SGD = partial(torch.optim.SGD, lr=1e-3)


@pytest.fixture
def fit(make_network, make_data, monkeypatch):
    """Trains with the callback on a console of our own; gives what was written."""

    def make(epochs: int, terminal: bool, *callbacks) -> str:
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        monkeypatch.setattr(rich, "_console", console)
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=epochs, num_sanity_val_steps=0, enable_model_summary=False, **off,
            callbacks=[PhaseProgress("head", epochs), *callbacks],
        )  # fmt: skip
        try:
            trainer.fit(Classifier(make_network(), nn.CrossEntropyLoss(), SGD), make_data())
        finally:
            make.text = out.getvalue()
        return make.text

    return make


def test_without_a_terminal_about_ten_lines_a_phase_are_written(fit):
    lines = fit(23, False).splitlines()
    assert 8 <= len(lines) <= 14
    assert lines[0].split()[:2] == ["head", "1/23"]
    assert lines[-1].split()[:2] == ["head", "23/23"]
    assert all("train loss" in line and "val loss" in line and "val accuracy" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_that_goes_away(fit):
    text = fit(2, True)
    assert "head" in text
    assert "val accuracy" in text
    assert text.rstrip("\n").endswith("\x1b[2K")  # the line is wiped at the end


def test_a_terminal_is_as_it_was_when_training_breaks_off(fit):
    class Stop(pl.Callback):
        def on_train_batch_end(self, *args):
            raise KeyError("broken")

    with pytest.raises(KeyError):
        fit(2, True, Stop())
    assert fit.text.rstrip("\n").rfind("\x1b[?25h") > fit.text.rfind("\x1b[?25l")  # the cursor is shown again
