"""Boxes, contact sheets, figures and tables, drawn for a person to look at."""
