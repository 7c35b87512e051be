"""Methods that learn from preferred and rejected responses directly."""
