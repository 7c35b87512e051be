"""`farm principles`: the few sentences that votes seem to follow, and judges that follow them."""
