"""Real servers on this machine, and the demonstration that uses them."""
