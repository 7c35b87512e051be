"""Methods that sample while they learn and are paid by a reward model."""
