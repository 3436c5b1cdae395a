"""Answers with what they rest on, as a page and as a figure."""
