"""What all of cxrnet stands on: configuration, console, files, cache, process."""
