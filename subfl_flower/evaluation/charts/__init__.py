"""Figures as data, and the two ways in which they are drawn: by Matplotlib into files, by plotly on a page."""
