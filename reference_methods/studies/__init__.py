"""Claims about learning that need no language model: small worlds of numbers, one file a study, run by `compute`.

What studies share is ``parts``, ``minimising`` and ``pocket_texts``.
"""
