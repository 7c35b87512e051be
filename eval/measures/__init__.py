"""What claims compare: numbers of one method, made of the tables of a run alone. A file is the measure of its name."""
