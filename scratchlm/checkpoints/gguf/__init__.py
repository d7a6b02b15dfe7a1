"""GGUF, the file format of llama.cpp and Ollama: reader and writer."""
