"""What is kept: the store of answers, the stages under their content address, and the digest of the code."""
