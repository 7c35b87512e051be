"""What an experiment's verdicts are turned into."""
