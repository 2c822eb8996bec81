import matplotlib as mpl
from matplotlib.figure import Figure

from cxrnet.reporting.plots.classification import accuracy_curve, loss_curve, save_curves


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def test_curves_are_written(history, tmp_path):
    assert sorted(save_curves(history, 7, tmp_path)) == ["accuracy_curve", "loss_curve"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["accuracy_curve.png", "loss_curve.png"]


def test_curves_mark_phases_and_kept_epoch(history):
    for figure in (accuracy_curve(history, 7), loss_curve(history, 7)):
        assert {"head", "finetune", "kept (epoch 7)"} <= set(_texts(figure))
