"""Floor 4: what is wrong with the data, found before the number is believed."""
