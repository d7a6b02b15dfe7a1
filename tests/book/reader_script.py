"""A reader's script, written against the book's chapters as files beside it; only its imports are changed to run it.

The text is ours; names, arguments and return values are the book's.
"""

import json
import re

import pandas as pd
import tiktoken
import torch
from appendix_e import replace_linear_with_lora
from ch02 import GPTDatasetV1, SimpleTokenizerV1, SimpleTokenizerV2, create_dataloader_v1
from ch03 import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
)
from ch04 import DummyGPTModel, GPTModel, generate_text_simple
from ch05 import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    generate,
    text_to_token_ids,
    token_ids_to_text,
    train_model_simple,
)
from ch06 import (
    SpamDataset,
    calc_accuracy_loader,
    classify_review,
    create_balanced_dataset,
    random_split,
    train_classifier_simple,
)
from ch07 import InstructionDataset, custom_collate_fn, format_input
from torch.utils.data import DataLoader

TEXT = "A grey cat sat by the door. The dog looked at the cat, and the cat looked at the dog. " * 60
GPT_CONFIG = {
    "vocab_size": 50257,
    "context_length": 32,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 1,
    "drop_rate": 0.0,
    "qkv_bias": False,
}
device = torch.device("cpu")

# chapter 2
words = [item.strip() for item in re.split(r'([,.:;?_!"()\']|--|\s)', TEXT) if item.strip()]
vocab = {token: i for i, token in enumerate([*sorted(set(words)), "<|endoftext|>", "<|unk|>"])}
ids = SimpleTokenizerV1(vocab).encode("The dog sat.")
print("V1", SimpleTokenizerV1(vocab).decode(ids))
print("V2", SimpleTokenizerV2(vocab).decode(SimpleTokenizerV2(vocab).encode("The fox sat.")))
tokenizer = tiktoken.get_encoding("gpt2")
dataset = GPTDatasetV1(TEXT, tokenizer, max_length=32, stride=32)
print("windows", len(dataset), dataset[0][0].shape)
loader = create_dataloader_v1(
    TEXT, batch_size=4, max_length=32, stride=32, shuffle=True, drop_last=True, num_workers=0
)
val_loader = create_dataloader_v1(
    TEXT[:1500], batch_size=2, max_length=32, stride=32, shuffle=False, drop_last=False, num_workers=0
)

# chapter 3
torch.manual_seed(123)
x = torch.rand(6, 3)
batch = torch.stack((x, x), dim=0)
print("v1, v2", SelfAttention_v1(3, 2)(x).shape, SelfAttention_v2(3, 2)(x).shape)
print("causal", CausalAttention(3, 2, 6, 0.0)(batch).shape)
print("wrapper", MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2)(batch).shape)
print(
    "multi-head", MultiHeadAttention(d_in=3, d_out=4, context_length=6, dropout=0.0, num_heads=2)(batch).shape
)

# chapter 4
torch.manual_seed(123)
print("dummy", DummyGPTModel(GPT_CONFIG)(torch.tensor([[1, 2, 3]])).shape)
model = GPTModel(GPT_CONFIG)
model.eval()
encoded = torch.tensor(tokenizer.encode("The dog")).unsqueeze(0)
out = generate_text_simple(
    model=model, idx=encoded, max_new_tokens=4, context_size=GPT_CONFIG["context_length"]
)
print("simple", out.shape)

# chapter 5
input_batch, target_batch = next(iter(loader))
with torch.no_grad():
    print("loss > 9", calc_loss_batch(input_batch, target_batch, model, device).item() > 9)
    before = calc_loss_loader(val_loader, model, device, num_batches=2)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
train_losses, val_losses, tokens_seen = train_model_simple(
    model, loader, val_loader, optimizer, device,
    num_epochs=2, eval_freq=5, eval_iter=1, start_context="The dog", tokenizer=tokenizer,
)  # fmt: skip
train_loss, val_loss = evaluate_model(model, loader, val_loader, device, eval_iter=1)
print("learnt", val_loss < before - 3, len(train_losses) == len(val_losses) == len(tokens_seen))
torch.manual_seed(123)
token_ids = generate(
    model=model, idx=text_to_token_ids("The dog", tokenizer).to(device), max_new_tokens=5,
    context_size=32, top_k=25, temperature=1.4, eos_id=50256,
)  # fmt: skip
print("sampled", token_ids_to_text(token_ids, tokenizer).startswith("The dog"))
torch.save(
    {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, "model.pth"
)
checkpoint = torch.load("model.pth", map_location=device, weights_only=True)
model = GPTModel(GPT_CONFIG)
model.load_state_dict(checkpoint["model_state_dict"])

# chapter 6
rows = [("spam", f"win prize number {i} now") for i in range(12)] + [
    ("ham", f"see you at {i}") for i in range(30)
]
df = create_balanced_dataset(pd.DataFrame(rows, columns=["Label", "Text"]))
df["Label"] = df["Label"].map({"ham": 0, "spam": 1})
parts = random_split(df, 0.7, 0.1)
for name, part in zip(("train", "validation", "test"), parts):
    part.to_csv(f"{name}.csv", index=None)
print("parts", [len(part) for part in parts])
train_dataset = SpamDataset(csv_file="train.csv", max_length=None, tokenizer=tokenizer)
sets = [train_dataset] + [
    SpamDataset(csv_file=f"{name}.csv", max_length=train_dataset.max_length, tokenizer=tokenizer)
    for name in ("validation", "test")
]
train_part, val_part, test_part = (
    DataLoader(part, batch_size=4, shuffle=i == 0) for i, part in enumerate(sets)
)
for param in model.parameters():
    param.requires_grad = False
torch.manual_seed(123)
model.out_head = torch.nn.Linear(in_features=GPT_CONFIG["emb_dim"], out_features=2)
for param in [*model.trf_blocks[-1].parameters(), *model.final_norm.parameters()]:
    param.requires_grad = True
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
results = train_classifier_simple(
    model, train_part, val_part, optimizer, device, num_epochs=6, eval_freq=50, eval_iter=2
)
print("classifier", len(results), calc_accuracy_loader(train_part, model, device) > 0.9)
print(
    "review",
    classify_review("win prize number 5 now", model, tokenizer, device, max_length=train_dataset.max_length),
)

# appendix E
replace_linear_with_lora(model, rank=2, alpha=2)
print("still", calc_accuracy_loader(test_part, model, device) >= 0.5)

# chapter 7
entries = [
    {"instruction": f"Double {i}.", "input": str(i) if i % 2 else "", "output": str(2 * i)} for i in range(8)
]
print("prompt", format_input(entries[1]).count("###"))
instructions = DataLoader(InstructionDataset(entries, tokenizer), batch_size=4, collate_fn=custom_collate_fn)
inputs, targets = next(iter(instructions))
print("batch", inputs.shape == targets.shape, (targets == -100).any().item())
print(json.dumps({"done": True}))
