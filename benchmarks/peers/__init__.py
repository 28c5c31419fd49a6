"""Other engines writing the same table, each as an expert would set it up for two cores."""
