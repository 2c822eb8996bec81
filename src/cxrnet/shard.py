"""``python -m cxrnet.shard data=<option> shards=<folder>``: write a data set as shards; see ``conf/shard.yaml``."""

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.process import quick_imports
from cxrnet.workflows.settings import Shard


@entry_point(Shard)
def main(config: DictConfig) -> None:
    """Write shards; the heavy imports wait until the configuration is known to be sound."""
    with quick_imports():
        from cxrnet.workflows.shard import shard

    shard(config)


if __name__ == "__main__":
    main()
