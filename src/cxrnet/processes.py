"""Which process this is, of a training on several devices."""

import os
import sys

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # as Lightning 2.6 reads them when it is imported


def is_main_process() -> bool:
    """Whether this process speaks for the run; the others of a distributed training only train.

    Lightning knows; before it is imported, which takes seconds, the environment that it will ask.
    """
    if lightning := sys.modules.get("lightning.fabric.utilities.rank_zero"):
        return int(getattr(lightning.rank_zero_only, "rank", 0)) == 0
    return int(next((os.environ[name] for name in _RANKS if name in os.environ), 0)) == 0
