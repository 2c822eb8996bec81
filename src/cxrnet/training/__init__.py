"""Floor 3: training in phases."""
