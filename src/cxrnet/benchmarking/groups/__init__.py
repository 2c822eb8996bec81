"""What is compared with what, and the targets: one module for each group of ``only``."""
