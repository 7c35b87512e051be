"""Published annotations and boards: fetched, read, and reproduced."""
