#!/bin/sh
# Draws the pictures of docs/games.md: run it in this folder after a change to a method.
set -e
for method in nash_md self_play online_ipo egpo inpo nash_mp online_dpo xpo; do
    farm game cycle.json --method "$method" --iterations 200 --plot "$method.svg" --json > /dev/null
done
farm game cycle.json --method nash_ema --step-size 1 --iterations 200 --plot nash_ema.svg --json > /dev/null
for method in dno sppo gpo spo; do
    farm game cycle.json --method "$method" --step-size 0.2 --iterations 600 --plot "$method.svg" --json > /dev/null
done
farm game cycle.json --method inpo --step-size 6 --iterations 200 --plot inpo_large_step.svg --json > /dev/null
farm game cycle.json --method egpo --step-size 6 --iterations 200 --plot egpo_large_step.svg --json > /dev/null
