"""``python -m cxrnet.export bundle=<bundle> format=<format>``: a bundle as ONNX, torch.export or for the hub."""

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Export


@entry_point(Export)
def main(config: DictConfig) -> None:
    """Export a bundle; the heavy imports wait until the configuration is known to be sound."""
    with quick_imports():
        from cxrnet.workflows.export import export

    export(config)


if __name__ == "__main__":
    main()
