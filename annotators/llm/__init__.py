"""Annotators that ask a language model: backends, prompts, verdicts, and runs that lose and repeat nothing."""
