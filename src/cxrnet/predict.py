"""``python -m cxrnet.predict bundle=<bundle> input=<images>``: class and probability of each image."""

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Predict


@entry_point(Predict)
def main(config: DictConfig) -> None:
    """Predict images; the heavy imports wait until the configuration is known to be sound."""
    with quick_imports():
        from cxrnet.workflows.predict import predict

    predict(config)


if __name__ == "__main__":
    main()
