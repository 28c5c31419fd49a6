"""Writes on a SLURM cluster, and a SLURM of one node to try them on."""
