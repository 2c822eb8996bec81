"""``python -m cxrnet.evaluate bundle=<run> data=<option>``: one bundle on other data; see ``conf/evaluate.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Evaluate

NAMED = ("sets.", "sets=", "classes.", "classes=")


def by_name(arguments: list[str]) -> list[str]:
    """Let ``sets.<name>...`` and ``classes.<name>...`` be typed without the ``++`` that Hydra wants for new names."""
    return [f"++{text}" if text.startswith(NAMED) else text for text in arguments]


@entry_point(Evaluate, by_name)
def main(config: DictConfig) -> None:
    """Evaluate one bundle; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.evaluate import evaluate_external

    hydra = HydraConfig.get()
    folder, option = Path(hydra.runtime.output_dir), hydra.runtime.choices["data"]
    evaluate_external(config, folder, option, hydra.overrides.task)


if __name__ == "__main__":
    main()
