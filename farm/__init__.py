"""Feedback farm: simulate human feedback, learn from it, and measure how far the result would hold with people.

The ground of the house (docs/architecture.md): records and randomness, the store, formats, protocols and
configuration, models and policies, worlds, the experiment loop, and the command line. It imports no wing.
"""

__version__ = "0.1.0"
