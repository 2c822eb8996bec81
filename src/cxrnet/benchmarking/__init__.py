"""How fast cxrnet is on the machine at hand, beside what a user would do otherwise."""
