"""The one exception a user may see."""


class CxrnetError(Exception):
    """A mistake that the user can mend.

    The text is one line and says what is wrong, where, and what to do. The entry points print that line and
    nothing else; any other exception is a defect of cxrnet and keeps its traceback.
    """


ANOTHER_VERSION = (
    "resume: the run was begun by another version of cxrnet, whose keys differ ({}); start a new run, or resume it "
    "with the version that began it"
)
"""Refuses a run whose configuration holds a key, or a name, that there is not any more."""


class Pruned(Exception):  # noqa: N818 (no error: the run is left as far as it has come)
    """A search has stopped a run that would not be its best; the text is ``pruned at epoch <N>, <metric> <value>``."""
