"""Image files: how they are decoded, resized, read and stored."""
