"""A Helm chart for the Dask operator, and what its pods run besides Dask."""
