"""Images that stand under more than one name."""
