"""Trains the project's own small models; README.md in this folder is the manual."""
