"""What a run, the loaders and the restores withstood: kills, damage, bad numbers, bad data. Nothing here is a test."""
