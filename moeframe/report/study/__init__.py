"""The page and tables of a study."""
