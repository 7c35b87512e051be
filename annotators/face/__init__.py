"""The commands of annotation, and their mirror in Python."""
