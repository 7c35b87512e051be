"""In which order stages are made, and where: here, in processes of this machine, or on a Ray cluster."""
