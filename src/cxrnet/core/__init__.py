"""Base of all packages: configuration, console, files, cache, process."""
