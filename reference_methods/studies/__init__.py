"""Claims about learning that need no language model: small worlds of numbers, one file a study, run by `compute`."""
