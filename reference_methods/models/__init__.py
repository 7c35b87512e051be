"""Models of the feedback: rewards and preferences."""
