"""One image and a compose file: scheduler, workers, store, notebooks, metrics."""
