"""What everything stands on: mistakes as sentences, keyed randomness, progress, and whether a launcher started us."""
