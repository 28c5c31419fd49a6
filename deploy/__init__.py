"""Everything around the package that runs it: on this machine, and elsewhere."""
