"""Tables of many people's votes on the same pairs: read them, see how far they agree, what noise explains them, and how
good each annotator is. Simulated annotators are calibrated on them, and judges are held against them."""
