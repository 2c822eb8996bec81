"""Results, report, model card and comparison, in words, tables and plots."""
