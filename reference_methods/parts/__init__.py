"""Pure functions and small tools that the methods share."""
