"""The command of games, and its mirror in Python."""
