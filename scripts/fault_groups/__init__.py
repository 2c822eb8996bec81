"""Faults that ``scripts/faults.py`` makes, a module for each group, and their bench."""
