"""The roles that classes play, and how a YAML names who plays them."""
