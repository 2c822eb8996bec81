"""The order of the steps of each command."""
