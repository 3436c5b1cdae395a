"""The model behind HTTP, in the form of OpenAI's chat completions: one model, one thread for it, a bounded queue."""
