"""TensorFlow checkpoints, read without TensorFlow: the form in which OpenAI published GPT-2."""
