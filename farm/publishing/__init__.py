"""Sets and models on their way to a hub: in which files they are sent, and what their cards say."""
