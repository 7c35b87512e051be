"""How a table is put before one who gives feedback: order, chunks, the store, and limits of money and rate."""
