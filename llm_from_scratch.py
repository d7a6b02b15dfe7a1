# %% [markdown]
# # A large language model from scratch
#
# All chapters in one script: text, tokens, attention, a GPT, pre-training, a spam classifier, an assistant, and
# its evaluation. The names are those of the book "Build a Large Language Model (From Scratch)", the code is
# scratchlm's.
#
# `python llm_from_scratch.py` needs no network and takes a few minutes on two CPU cores: small models, and sample data
# written for this project. `python llm_from_scratch.py --full` downloads what the book uses (OpenAI's GPT-2 weights,
# the SMS Spam Collection, the instruction data), and has Llama 3 score the answers if Ollama is running.
#
# On a fresh Colab machine the first cell installs the package; elsewhere: `pip install scratchlm[all]`.

# %%
import importlib.util
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("scratchlm") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "scratchlm[all]"], check=True)

# %%
import csv
import functools
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from scratchlm import gpt2_tokenizer
from scratchlm.assets.fetch import fetch_asset
from scratchlm.book import appendix_d, appendix_e, ch02, ch03, ch04, ch05, ch06, ch07
from scratchlm.data.samples.instructions import sample_instructions
from scratchlm.data.samples.messages import sample_messages
from scratchlm.data.samples.stories import sample_stories
from scratchlm.tokenizers import train_bpe
from scratchlm.tokenizers.word import build_vocab, split_words

FULL = "--full" in sys.argv  # in a notebook: set it by hand
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(123)

# %% [markdown]
# ## Chapter 2: text into tokens
#
# Words first: every word of the text gets an id, and unknown words share the id of `<|unk|>`.

# %%
if FULL:
    raw_text = fetch_asset("text/the-verdict.txt").read_text(encoding="utf-8")
else:
    raw_text = "<|endoftext|>".join(sample_stories(seed=0, n=600))
print(f"{len(raw_text):,} characters, beginning with {raw_text[:60]!r}")

words = split_words(raw_text.replace("<|endoftext|>", " "))
vocab = build_vocab(words, special_tokens=["<|endoftext|>", "<|unk|>"])
word_tokenizer = ch02.SimpleTokenizerV2(vocab)
print(f"{len(words):,} words, {len(vocab):,} different ones")
print(word_tokenizer.decode(word_tokenizer.encode("Once upon a time there was a xylophone.")))

# %% [markdown]
# Byte-pair encoding can encode any text: rare words are split into smaller pieces, down to single bytes.

# %%
if FULL:
    for name in ("gpt2_bpe/encoder.json", "gpt2_bpe/vocab.bpe"):
        fetch_asset(name)
    tokenizer = gpt2_tokenizer()
else:
    tokenizer = train_bpe([raw_text], 1024)
ids = tokenizer.encode("Once upon a time there was a xylophone.")
print(ids)
print([tokenizer.decode([id_]) for id_ in ids])

# %% [markdown]
# A sliding window creates the training examples: given these tokens, predict the next one.

# %%
context_length = 256 if FULL else 128
cut = int(0.9 * len(raw_text))
train_set = ch02.GPTDatasetV1(raw_text[:cut], tokenizer, max_length=context_length, stride=context_length)
val_set = ch02.GPTDatasetV1(raw_text[cut:], tokenizer, max_length=context_length, stride=context_length)
batch_size = 2 if FULL else 8
train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True, drop_last=True)
val_loader = DataLoader(val_set, batch_size=batch_size)
inputs, targets = next(iter(val_loader))
print(inputs[0, :6].tolist(), "->", targets[0, :6].tolist())

# %% [markdown]
# ## Chapter 3: attention
#
# Each token attends to the tokens before it, with several heads, and combines their values.

# %%
torch.manual_seed(123)
sentence = torch.rand(1, 6, 3)  # six words of three numbers each
attention = ch03.MultiHeadAttention(d_in=3, d_out=4, context_length=6, dropout=0.0, num_heads=2)
print(
    attention.attention_weights(sentence)[0, 0].detach().numpy().round(2)
)  # zero above the diagonal: no attention to the future
print(attention(sentence).shape)

# %% [markdown]
# ## Chapter 4: a GPT
#
# A stack of transformer blocks, each with attention and a feed-forward network. Untrained, it generates random text.

# %%
config = {
    "vocab_size": tokenizer.vocab_size,
    "context_length": context_length,
    "emb_dim": 768 if FULL else 128,
    "n_heads": 12 if FULL else 4,
    "n_layers": 12 if FULL else 4,
    "drop_rate": 0.1 if FULL else 0.0,
    "qkv_bias": False,
}
torch.manual_seed(123)
model = ch04.GPTModel(config).to(device)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
start_context = "Every effort moves you" if FULL else "Once upon a time"
encoded = ch05.text_to_token_ids(start_context, tokenizer).to(device)
model.eval()
babble = ch04.generate_text_simple(model, encoded, max_new_tokens=15, context_size=context_length)
print(ch05.token_ids_to_text(babble, tokenizer))

# %% [markdown]
# ## Chapter 5: pre-training
#
# The loss is the cross-entropy of the next token. Training reduces it.

# %%
with torch.no_grad():
    print("loss before training:", ch05.calc_loss_loader(val_loader, model, device, num_batches=5))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.0004 if FULL else 0.002, weight_decay=0.1)
train_losses, val_losses, tokens_seen = ch05.train_model_simple(
    model, train_loader, val_loader, optimizer, device,
    num_epochs=10 if FULL else 6, eval_freq=5 if FULL else 100, eval_iter=5,
    start_context=start_context, tokenizer=tokenizer,
)  # fmt: skip

# %% [markdown]
# Greedy decoding repeats itself; temperature and top-k sample from the likely tokens instead.

# %%
torch.manual_seed(123)
drawn = ch05.generate(
    model, encoded, max_new_tokens=40, context_size=context_length, top_k=25, temperature=0.8
)
print(ch05.token_ids_to_text(drawn, tokenizer))

# %% [markdown]
# ## Appendix D: more stable training
#
# Learning rate warm-up, cosine decay, and gradient clipping to a norm of 1, shown on a new model (offline on a few
# windows only).

# %%
torch.manual_seed(123)
steadier = ch04.GPTModel(config).to(device)
some_windows = train_set if FULL else torch.utils.data.Subset(train_set, range(min(200, len(train_set))))
steady_loader = DataLoader(some_windows, batch_size=batch_size, shuffle=True, drop_last=True)
n_epochs = 15 if FULL else 1
optimizer = torch.optim.AdamW(steadier.parameters(), lr=0.001 if FULL else 0.002, weight_decay=0.1)
*_, learning_rates = appendix_d.train_model(
    steadier, steady_loader, val_loader, optimizer, device,
    n_epochs=n_epochs, eval_freq=5, eval_iter=1, start_context=start_context, tokenizer=tokenizer,
    warmup_steps=int(0.2 * n_epochs * len(steady_loader)), initial_lr=1e-5, min_lr=1e-5,
)  # fmt: skip
print(
    f"learning rate: {learning_rates[0]:.5f}, at most {max(learning_rates):.5f}, {learning_rates[-1]:.5f} at the end"
)
print(f"highest gradient of the last step: {appendix_d.find_highest_gradient(steadier):.3f}")

# %% [markdown]
# OpenAI's weights load into the same model, which then generates text like GPT-2. The following chapters start from
# these weights, or from the ones just trained.

# %%
if FULL:
    settings, params = ch05.download_and_load_gpt2(model_size="124M", models_dir="gpt2")
    config |= {"context_length": 1024, "qkv_bias": True, "drop_rate": 0.0}
    context_length = 1024
    model = ch04.GPTModel(config)
    ch05.load_weights_into_gpt(model, params)
    model.to(device).eval()
    torch.manual_seed(123)
    drawn = ch05.generate(model, encoded, max_new_tokens=25, context_size=1024, top_k=50, temperature=1.5)
    print(ch05.token_ids_to_text(drawn, tokenizer))
pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}

# %% [markdown]
# ## Chapter 6: a spam classifier
#
# The same model with a new output layer for two classes, read at the last token, which attends to the whole message.

# %%
if FULL:
    import pandas as pd

    spam_file = fetch_asset("sms_spam_collection/SMSSpamCollection")
    table = pd.read_csv(spam_file, sep="\t", header=None, names=["Label", "Text"])
    table = ch06.create_balanced_dataset(table)
    table["Label"] = table["Label"].map({"ham": 0, "spam": 1})
    parts = [list(zip(part["Label"], part["Text"])) for part in ch06.random_split(table, 0.7, 0.1)]
else:
    short = [
        message for message in sample_messages(seed=0) if len(message.text) <= 120
    ]  # the model reads 128 tokens
    rows = [(int(message.label == "spam"), message.text) for message in short]
    rows = [row for row in rows if row[0] == 1][:400] + [row for row in rows if row[0] == 0][:400]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(123)).tolist()]
    parts = [rows[:560], rows[560:640], rows[640:]]

spam_sets = []
with tempfile.TemporaryDirectory() as folder:  # the data sets read their files at once
    for name, part in zip(("train", "validation", "test"), parts):
        path = Path(folder) / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["Label", "Text"])
            writer.writerows(part)
        longest = spam_sets[0].max_length if spam_sets else None
        spam_sets.append(
            ch06.SpamDataset(path, tokenizer, max_length=longest, pad_token_id=tokenizer.end_of_text_id)
        )
torch.manual_seed(123)
spam_train = DataLoader(spam_sets[0], batch_size=8, shuffle=True, drop_last=True)
spam_val = DataLoader(spam_sets[1], batch_size=8)
spam_test = DataLoader(spam_sets[2], batch_size=8)

# %%
for parameter in model.parameters():
    parameter.requires_grad_(False)
torch.manual_seed(123)
model.out_head = torch.nn.Linear(config["emb_dim"], 2).to(device)
trainable = (model.trf_blocks[-1], model.final_norm) if FULL else (model.trf_blocks, model.final_norm)
for part in trainable:
    for parameter in part.parameters():
        parameter.requires_grad_(True)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5 if FULL else 1e-3, weight_decay=0.1)
ch06.train_classifier_simple(
    model, spam_train, spam_val, optimizer, device, num_epochs=5 if FULL else 2, eval_freq=50, eval_iter=5
)
print(f"test accuracy: {ch06.calc_accuracy_loader(spam_test, model, device):.1%}")
if FULL:
    texts = ["You are a winner! Claim your $1000 cash prize now", "Are we still on for dinner tonight?"]
else:
    texts = [next(text for label, text in parts[2] if label == wanted) for wanted in (1, 0)]
for text in texts:
    label = ch06.classify_review(
        text, model, tokenizer, device,
        max_length=spam_sets[0].max_length, pad_token_id=tokenizer.end_of_text_id,
    )  # fmt: skip
    print(f"{text!r} -> {label}")

# %% [markdown]
# ## Appendix E: the same with LoRA
#
# Instead of the weights themselves, two low-rank matrices beside each of them are trained.

# %%
model = ch04.GPTModel(config)
model.load_state_dict(pretrained)
for parameter in model.parameters():
    parameter.requires_grad_(False)
torch.manual_seed(123)
model.out_head = torch.nn.Linear(config["emb_dim"], 2)
appendix_e.replace_linear_with_lora(model, rank=16, alpha=16)
model.to(device)
n_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{n_trainable:,} of {sum(p.numel() for p in model.parameters()):,} parameters learn")
optimizer = torch.optim.AdamW(model.parameters(), lr=8e-4 if FULL else 3e-3, weight_decay=0.1)
ch06.train_classifier_simple(
    model, spam_train, spam_val, optimizer, device, num_epochs=5 if FULL else 1, eval_freq=50, eval_iter=5
)
print(f"test accuracy: {ch06.calc_accuracy_loader(spam_test, model, device):.1%}")

# %% [markdown]
# ## Chapter 7: an assistant that follows instructions
#
# Each example is an instruction and its answer in one text; padding has no loss. A model of a million parameters
# trained for a minute answers in the right format but often incorrectly: `scratchlm run quickstart` trains a better one
# in a few minutes, `--full` one with 124 million parameters.

# %%
if FULL:
    data = ch07.download_and_load_file(
        "instruction-data.json", fetch_asset("instruction/instruction-data.json").as_uri()
    )
    train_data, test_data, val_data = data[:935], data[935:1045], data[1045:]
else:
    sample = sample_instructions(seed=0)
    entries = [
        {"instruction": entry.instruction, "input": entry.input, "output": entry.output}
        for entry in sample.train[:2500] + sample.test[:20]
    ]
    train_data, val_data, test_data = entries[:2400], entries[2400:2500], entries[2500:]
print(ch07.format_input(test_data[0]) + "\n\n### Response:\n" + test_data[0]["output"])

# %%
collate = functools.partial(
    ch07.custom_collate_fn,
    pad_token_id=tokenizer.end_of_text_id,
    allowed_max_length=context_length,
    device=device,
)
torch.manual_seed(123)
answers_train = DataLoader(
    ch07.InstructionDataset(train_data, tokenizer),
    batch_size=8,
    collate_fn=collate,
    shuffle=True,
    drop_last=True,
)
answers_val = DataLoader(ch07.InstructionDataset(val_data, tokenizer), batch_size=8, collate_fn=collate)

model = ch04.GPTModel(config)
model.load_state_dict(pretrained)
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5 if FULL else 1e-3, weight_decay=0.1)
ch05.train_model_simple(
    model, answers_train, answers_val, optimizer, device, num_epochs=2, eval_freq=20 if FULL else 100, eval_iter=5,
    start_context=ch07.format_input(val_data[0]), tokenizer=tokenizer,
)  # fmt: skip

# %%
for entry in test_data if FULL else test_data[:6]:
    prompt = ch07.format_input(entry) + "\n\n### Response:\n"
    encoded = ch05.text_to_token_ids(prompt, tokenizer).to(device)
    answered = ch05.generate(
        model,
        encoded,
        max_new_tokens=256 if FULL else 24,
        context_size=context_length,
        eos_id=tokenizer.end_of_text_id,
    )
    entry["model_response"] = tokenizer.decode(answered[0, encoded.shape[1] :].tolist()).strip()
    print(
        f"{entry['instruction']} {entry['input']}\n  right:  {entry['output']}\n  answer: {entry['model_response']}"
    )

# %% [markdown]
# ## Evaluation by a larger model
#
# Llama 3 compares answer and reference, if Ollama is running.

# %%
if FULL and ch07.check_if_running("ollama"):
    scores = ch07.generate_model_scores(test_data, "model_response")
    print(
        f"{len(scores)} of {len(test_data)} answers scored, mean {sum(scores) / max(len(scores), 1):.2f} of 100"
    )
else:
    n_right = sum(entry.get("model_response") == entry["output"] for entry in test_data)
    print(f"{n_right} answers are word for word the reference; for marks: `ollama pull llama3`, then --full")

# %% [markdown]
# ## A web page
#
# `make serve` opens a page on the models in `runs/`: write with them, and see each token's alternatives, the
# attention of every head, and how a prediction forms from layer to layer.

# %%
print("next: make serve, or scratchlm serve, for a web page on the models in runs/")
