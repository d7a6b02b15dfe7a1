"""GPT-2's weights as OpenAI published them, under the name that readers of the book know.

    from gpt_download3 import download_and_load_gpt2
    settings, params = download_and_load_gpt2(model_size="124M", models_dir="gpt2")
    download_file("https://example.org/data.json", "data.json", backup_url="https://example.com/data.json")

Importing it has no other effect. Downloads use verified connections, resume after an interruption, and are checked
against the known sha256; TensorFlow is not needed. `scratchlm weights fetch gpt2-small --source openai --dir
gpt2` fetches the same files.
"""

from scratchlm.book.ch05 import download_and_load_gpt2, download_file, load_gpt2_params_from_tf_ckpt

__all__ = ["download_and_load_gpt2", "download_file", "load_gpt2_params_from_tf_ckpt"]
