"""The commands of the ground."""
