"""LongVU as a model of lmms-eval, the community's evaluation harness, which finds it by its entry point."""
