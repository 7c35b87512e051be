"""Methods that learn from lists of responses in order."""
