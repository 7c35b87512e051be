"""Rankings, intervals of ranks, and how far two rankings agree."""
