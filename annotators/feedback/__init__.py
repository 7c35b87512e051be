"""Feedback other than pairs: ratings, reactions, rankings, critiques and spans, by simulated people."""
