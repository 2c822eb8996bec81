"""Image files: how they are found, decoded, resized, read and stored."""
