"""`python -m jaxppo.watch`: runs while they train, in the terminal or as a page."""
