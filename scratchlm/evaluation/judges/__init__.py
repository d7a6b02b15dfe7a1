"""Who can be asked for a judgement: a model under Ollama, one behind OpenAI's protocol, or one of ours."""
