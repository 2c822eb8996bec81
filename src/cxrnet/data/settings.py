"""Numbers of the group ``data``: what each may be, told without importing what works with them."""

from collections.abc import Sequence
from typing import Literal, get_args

from cxrnet.errors import CxrnetError

Draw = Literal["shuffle", "balanced"]


def check_numbers(size: Sequence[int], batch_size: int, sampler: str, num_workers: int, limit: int | None) -> None:
    """See that the numbers of a data module will do; arguments as there.

    Raises:
        CxrnetError: one won't do; the first of them is named.
    """
    sides = list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or not all(_is_whole(side, 1) for side in sides):
        raise CxrnetError(f"data.size: {size} is not a size; give height and width in pixels, as [224, 224]")
    if not _is_whole(batch_size, 1):
        raise CxrnetError(f"data.batch_size: {batch_size} is no number of images; give a whole number from 1 on")
    if sampler not in get_args(Draw):
        raise CxrnetError(f"data.sampler: '{sampler}' is not known; use shuffle or balanced")
    if limit is not None and not _is_whole(limit, 1):
        raise CxrnetError(f"data.limit: {limit} is no number of images; give a whole number from 1 on")
    if not _is_whole(num_workers, 0):
        raise CxrnetError(f"data.num_workers: {num_workers} is no number of processes; give a whole number from 0 on")


def _is_whole(number: object, least: int) -> bool:
    return isinstance(number, int) and number >= least
