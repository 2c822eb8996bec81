"""``python -m cxrnet.benchmark [only=[group,...]] [key=value]``: how fast it is; see ``conf/benchmark.yaml``."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point


@entry_point("benchmark")
def main(config: DictConfig) -> None:
    """Measure cxrnet beside what a user would do otherwise, everything in processes of its own."""
    from hydra.core.hydra_config import HydraConfig

    from cxrnet.benchmarking.running import run_benchmarks

    hydra = HydraConfig.get()
    command = ["python", "-m", "cxrnet.benchmark", *hydra.overrides.task]
    run_benchmarks(config, Path(hydra.runtime.output_dir), command)


if __name__ == "__main__":
    main()
