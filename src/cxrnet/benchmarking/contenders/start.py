"""The network that every contender of torch starts from."""

from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.freezing import set_trainable
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig, Trainable


def starting_network(backbone: str, weights: str, trainable: Trainable, size: list[int], classes: int) -> Network:
    """A network with a linear head, weights as ``model.weights`` has them, frozen as a phase has it."""
    height, width = size
    settings = {
        "backbone": backbone,
        "classes": tuple(f"class {k}" for k in range(classes)),
        "size": (height, width),
        "mean": None,
        "std": None,
        "pool": "average",
        "pool_window": None,
        "hidden": (),
        "activation": "relu",
        "batch_norm": False,
        "dropout": 0.2,
        "l2": 0.0,
        "output": "softmax",
    }
    network = Network(NetworkConfig.from_dict(settings))
    load_weights(network.backbone, backbone, weights, (height, width))
    set_trainable(network, trainable)
    return network
