"""How good the answers are: tests with known answers, and their tables and figures."""
