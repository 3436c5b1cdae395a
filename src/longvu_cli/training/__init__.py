"""Training: a generic loop, and the fine-tuning of a released checkpoint."""
