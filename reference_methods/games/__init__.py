"""Methods that play against a policy and are judged by a preference."""
