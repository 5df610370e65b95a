"""Smaller models made from a trained one: a table of static vectors."""
