"""Who prefers, and how noisily: simulated annotators, noise models, and annotation runs."""
