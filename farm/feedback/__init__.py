"""Kinds of feedback, and which responses are put beside which."""
