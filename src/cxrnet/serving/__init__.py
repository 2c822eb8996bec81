"""A bundle behind HTTP: reader, queue, protection, application."""
