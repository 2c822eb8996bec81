"""Floor 2: networks, their weights, what is trainable in them, and the bundle they travel in."""
