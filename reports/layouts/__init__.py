"""Layouts: which rows and columns a named table has."""
