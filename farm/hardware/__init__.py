"""Models and the machine: loading, adapters, memory, several processes, what there is."""
