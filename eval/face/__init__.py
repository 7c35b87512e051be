"""The commands of evaluation, and their mirror in Python."""
