"""What every statistic is made of: results that carry their settings, and standard errors that know of clusters."""
