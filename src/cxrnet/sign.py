"""``python -m cxrnet.sign bundle=<folder>``: make the digests of a bundle anew, after it was changed on purpose."""

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Sign


@entry_point(Sign)
def main(config: DictConfig) -> None:
    """Check the bundle, sign it and print its new digest."""
    with quick_imports():
        from cxrnet.models.bundle import sign_bundle

    print(sign_bundle(config.bundle))


if __name__ == "__main__":
    main()
