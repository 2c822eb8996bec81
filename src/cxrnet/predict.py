"""``python -m cxrnet.predict bundle=<folder> input=<file or folder>``: class and confidence of each image."""

import sys
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.core.config import plain_config
from cxrnet.core.console import nobody_reads, stdout_lost
from cxrnet.core.process import quick_imports
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Predict


@entry_point(Predict)
def main(config: DictConfig) -> None:
    """Print, and on request write, the predictions of a bundle: path, class and its probability, tab-separated.

    ``deferred`` follows where the prediction is deferred to a reader. The mix of classes that the probabilities are of
    is said on stderr, so that stdout is the table alone.
    """
    with quick_imports():
        from cxrnet.evaluation.decision import read_mix
        from cxrnet.evaluation.predictions import DEFERRED, growing_file
        from cxrnet.inference import check_output, mix_facts, predict_files
        from cxrnet.models.bundle import device_of, load_bundle

    plain = plain_config(config)
    check_output(config.output)
    bundle, device = load_bundle(config.bundle), device_of(config.device)
    mix = read_mix(plain["prior"], bundle.prior)
    with growing_file(Path(config.output)) if config.output is not None else nullcontext() as add:
        facts = mix_facts(bundle, mix)
        for predictions in predict_files(bundle, config.input, config.batch_size, device, config.on_error, mix):
            for name in list(facts):  # once, after what is refused is refused
                print(f"{name}: {facts.pop(name)}", file=sys.stderr)
            for image in predictions.to_dict("records"):
                deferred = [DEFERRED] if image.get(DEFERRED) else []
                probability = f"{image['prob_' + image['predicted']]:.4f}"
                print(image["path"], image["predicted"], probability, *deferred, sep="\t")
            if add is not None:
                add(predictions)
            elif nobody_reads():
                break
    if (lost := stdout_lost()) is not None and not nobody_reads():
        raise CxrnetError(f"stdout: what was to be printed can't be written ({lost.strerror}); give output=<file>")


if __name__ == "__main__":
    main()
