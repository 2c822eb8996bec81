"""Floor 2: pure functions of prediction tables; no model, no image."""
