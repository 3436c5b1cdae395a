"""The mark of the synthetic world's films, on its own: to know one takes nothing of what makes them."""

from __future__ import annotations

# Stands in the files' metadata, so that the tiny model can tell what it knows from what it does not.
TITLE = "longvu world"
