"""What a person reads: results, report, model card, comparison, in words, tables and plots."""
