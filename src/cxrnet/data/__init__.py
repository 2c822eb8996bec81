"""Floor 1: from folders of images to a manifest, and from a manifest to batches."""
