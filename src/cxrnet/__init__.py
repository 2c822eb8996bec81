"""cxrnet: chest X-ray classification with results that can be defended.

The names below are what a notebook needs. Each is imported when it is first used, so that ``import cxrnet`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrnet.data.augment import geometric as geometric
    from cxrnet.data.datamodule import XrayDataModule as XrayDataModule
    from cxrnet.data.sources.folder import folder as folder
    from cxrnet.data.sources.tables import read_table as read_table
    from cxrnet.data.splits import complete_split as complete_split
    from cxrnet.errors import CxrnetError as CxrnetError
    from cxrnet.inference import predict_files as predict_files
    from cxrnet.models.backbones.weights import load_weights as load_weights
    from cxrnet.models.bundle import load_bundle as load_bundle
    from cxrnet.models.freezing import set_trainable as set_trainable
    from cxrnet.models.lightning_module import Classifier as Classifier
    from cxrnet.models.network import Network as Network
    from cxrnet.models.settings import NetworkConfig as NetworkConfig
    from cxrnet.training.phases import run_phases as run_phases
    from cxrnet.training.schedule import Phase as Phase
    from cxrnet.training.schedule import Schedule as Schedule

__version__ = "0.1.0"

_MODULES = {
    "Classifier": "cxrnet.models.lightning_module",
    "CxrnetError": "cxrnet.errors",
    "Network": "cxrnet.models.network",
    "NetworkConfig": "cxrnet.models.settings",
    "Phase": "cxrnet.training.schedule",
    "Schedule": "cxrnet.training.schedule",
    "XrayDataModule": "cxrnet.data.datamodule",
    "complete_split": "cxrnet.data.splits",
    "folder": "cxrnet.data.sources.folder",
    "geometric": "cxrnet.data.augment",
    "load_bundle": "cxrnet.models.bundle",
    "load_weights": "cxrnet.models.backbones.weights",
    "predict_files": "cxrnet.inference",
    "read_table": "cxrnet.data.sources.tables",
    "run_phases": "cxrnet.training.phases",
    "set_trainable": "cxrnet.models.freezing",
}

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604 (names all the same)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name is of)
    if name not in _MODULES:
        raise AttributeError(f"module 'cxrnet' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
