"""The group ``evaluation`` of the configuration: what each setting may be, checked before anything is trained."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from cxrnet.errors import CxrnetError

Kind = Literal["equal_width", "equal_mass"]  # of the bins of a reliability diagram
LEAST = 100  # resamples: fewer say nothing of the outer 2.5 %


def check_settings(settings: Mapping[str, Any]) -> None:
    """See that the settings of the evaluation will do.

    Args:
        settings: the group, plain, seed included.

    Raises:
        CxrnetError: one is missing or won't do; the first of them is named.
    """
    for key, (fits, wanted) in _CHECKS.items():
        value: Any = settings
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise CxrnetError(f"evaluation.{key}: is not there; give {wanted}")
            value = value[part]
        if not fits(value):
            raise CxrnetError(f"evaluation.{key}: {value} won't do; give {wanted}")


def check_share(share: object) -> float | None:
    """Check the share of the images that is to go to a reader; ``None`` where none is.

    Raises:
        CxrnetError: it is none.
    """
    if share is None:
        return None
    if not _share(share):
        raise CxrnetError(f"refer: {share} is no share of the images; give a number between 0 and 1, or null")
    return float(share)  # type: ignore[arg-type]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _share(value: Any) -> bool:  # noqa: ANN401 (whatever a user typed)
    return _number(value) and 0 < value < 1


def _shares(value: object) -> bool:
    return isinstance(value, list) and all(map(_share, value))


def _range(value: Any) -> bool:  # noqa: ANN401 (whatever a user typed)
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value)) and 0 <= value[0] < value[1] < 1


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resamples": (
        lambda value: _whole(value, 0) and (value == 0 or value >= LEAST),
        f"a whole number from {LEAST} on, or 0 for no intervals",
    ),
    "level": (_share, "a number between 0 and 1, as 0.95"),
    "seed": (lambda value: _whole(value, 0), "a whole number from 0 on"),
    "calibration.bins": (lambda value: _whole(value, 1), "a whole number from 1 on"),
    "calibration.kind": (lambda value: value in get_args(Kind), " or ".join(get_args(Kind))),
    "prevalences": (_shares, "a list of numbers between 0 and 1, as [0.05, 0.2]"),
    "missed": (_share, "a number between 0 and 1, as 0.01"),
    "decision_curve.thresholds": (_range, "two numbers from 0 on, the second larger and below 1, as [0.0, 0.5]"),
    "decision_curve.prevalence": (
        lambda value: value is None or _share(value),
        "a number between 0 and 1, or null for that of the images",
    ),
    "referral.shares": (_shares, "a list of numbers between 0 and 1, as [0.1, 0.2]"),
    "fewest": (lambda value: _whole(value, 0), "a whole number from 0 on"),
}
