"""Arguments, messages and folders of every command."""
