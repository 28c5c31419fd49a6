"""``python -m pamola_dwriter``."""

from pamola_dwriter.cli import main

main()
