"""The three compression steps of the paper, and the budget that steers them: pure functions."""
