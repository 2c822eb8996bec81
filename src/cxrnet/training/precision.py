"""In which precisions a network may train: those that leave its weights in float32, in which it predicts."""

from cxrnet.errors import CxrnetError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's


def check_precision(precision: object) -> None:
    """Refuse ``trainer.precision`` where it is of the weights.

    Raises:
        CxrnetError: it isn't one of :data:`PRECISIONS`.
    """
    if _SHORT.get(str(precision), str(precision)) not in PRECISIONS:
        raise CxrnetError(
            f"trainer.precision: {precision} is not for the weights, which predict in float32; "
            f"give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        )
