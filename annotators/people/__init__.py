"""Simulated people: what they value, and how they choose."""
