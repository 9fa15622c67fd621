"""Deciding with a trained policy: from bars and an account to an order, all at once or bar by bar."""
