"""Feedback other than pairs, by simulated people: one file a kind."""
