"""`python -m jaxppo.runs`: what lies in a folder of runs, how some of them differ, and what need not be kept."""
