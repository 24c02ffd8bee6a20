"""Comparing the arms: what was measured of each, the paired statistics, the file and the tables that say it."""
