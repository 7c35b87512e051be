"""Win rates: their intervals, length control, and how many annotations a difference needs."""
