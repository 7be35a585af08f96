"""Readers of data sets, their checks, and the tables of the published ones."""
