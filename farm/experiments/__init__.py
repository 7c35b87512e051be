"""An experiment: what its YAML says, its stages, how they are made in order, and what a run leaves behind."""
