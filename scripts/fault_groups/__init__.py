"""The faults that ``scripts/faults.py`` makes, a module for each group, and what they share."""
