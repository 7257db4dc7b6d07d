"""Where things lie: the store of results, the home folder and its settings."""
