"""Who answers the rows of a batch: this process, or several."""
