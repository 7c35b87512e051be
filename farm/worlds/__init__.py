"""Worlds: instructions, a base policy, and what can be known of the truth."""
