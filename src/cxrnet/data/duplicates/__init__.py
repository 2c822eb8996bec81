"""Duplicates of images: how they are found."""
