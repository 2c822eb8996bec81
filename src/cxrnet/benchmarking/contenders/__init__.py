"""What is measured: each function does one job in a process of its own and returns what it measured."""
