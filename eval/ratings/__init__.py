"""Ratings of many models from comparisons: Bradley-Terry, Elo, head to head."""
