"""Shards: a manifest and its images, at the size of the model, in a few thousand files on a disk or on S3."""
