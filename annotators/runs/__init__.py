"""Annotation runs: who is asked what, in which order, and what comes of it."""
