"""What preference games share: the exact game, duels, opponents, losses and the loop."""
