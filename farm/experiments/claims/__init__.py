"""A paper as one file: its claims, its controls, the experiments that test them, and what was seen.

paper.py      what a file in configs/papers says, and its check before anything runs
effects.py    an interval over seeds and instructions, and the verdict
measuring.py  the numbers of one cell, from the tables of a run folder
running.py    the experiments one after the other, then the claims
recorded.py   recorded results: the table of `farm papers`, and docs/papers.md
"""
