"""Methods that choose among samples: when they answer, or to imitate the chosen ones."""
