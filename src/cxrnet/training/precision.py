"""In which precisions a network may train: those that leave its weights in float32, in which it predicts."""

from cxrnet.errors import CxrnetError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's


def check_precision(precision: object, on_cpu: bool) -> None:
    """Refuse ``trainer.precision`` where it is of the weights, or one that the device hasn't got.

    Args:
        precision: as Lightning takes it.
        on_cpu: training runs on a CPU. Of ``16-mixed`` Lightning makes ``bf16-mixed`` there, and only warns.

    Raises:
        CxrnetError: it isn't one of :data:`PRECISIONS`, or it is ``16-mixed`` on a CPU.
    """
    known = _SHORT.get(str(precision), str(precision))
    if known not in PRECISIONS:
        raise CxrnetError(
            f"trainer.precision: {precision} is not for the weights, which predict in float32; "
            f"give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        )
    if known == "16-mixed" and on_cpu:
        raise CxrnetError(
            f"trainer.precision: {precision} needs a GPU, and training would run on the CPU; "
            "give trainer.precision=bf16-mixed"
        )
