"""The pocket world: a small universe of templated writing requests whose truth is known.

words.py         the words: topics, forms, constraints, styles
vocabulary.py    tokens and tokenizer
grammar.py       which requests there are, and how a response may read
observations.py  what can be read off a text
gold.py          what it is worth
base_model.py    a model of a third of a million parameters, trained from scratch
world.py         the world itself
"""
