"""Readers of data sets: each looks at one real layout on disk and returns a manifest."""
