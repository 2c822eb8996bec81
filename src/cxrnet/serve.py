"""``python -m cxrnet.serve bundle=<bundle>``: readings of images over HTTP."""

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Serve


@entry_point(Serve)
def main(config: DictConfig) -> None:
    """Serve a bundle; the heavy imports wait until the configuration is known to be sound."""
    with quick_imports():
        from cxrnet.workflows.serve import serve

    serve(config)


if __name__ == "__main__":
    main()
