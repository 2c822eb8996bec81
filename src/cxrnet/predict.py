"""``python -m cxrnet.predict bundle=<folder> input=<file or folder>``: class and confidence of each image."""

from pathlib import Path

from omegaconf import DictConfig

from cxrnet.app import entry_point


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Print, and on request write, what a bundle makes of images: path, class and its probability, tab-separated."""
    from cxrnet.evaluation.predictions import write_predictions
    from cxrnet.inference import check_output, predict_files
    from cxrnet.models.bundle import device_of, load_bundle

    check_output(config.output)
    bundle, device = load_bundle(config.bundle), device_of(config.device)
    predictions = predict_files(bundle, config.input, config.batch_size, device, config.on_error)
    for _, image in predictions.iterrows():
        print(image["path"], image["predicted"], f"{image['prob_' + image['predicted']]:.4f}", sep="\t")
    if config.output is not None:
        write_predictions(predictions, Path(config.output))


if __name__ == "__main__":
    main()
