"""Read TensorFlow checkpoints, OpenAI's format for GPT-2, without TensorFlow."""
