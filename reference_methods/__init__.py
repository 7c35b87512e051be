"""Who learns: the reference methods, one file each, on shared parts."""
