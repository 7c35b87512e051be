"""Noise models: each wraps an annotator and is one."""
