"""How a table is put before an annotator: in which order and chunks, and within which limits of money and rate."""
