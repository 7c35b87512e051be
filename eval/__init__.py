"""Who wins, and how sure we are: statistics, leaderboards and the report. Import names from the modules."""
