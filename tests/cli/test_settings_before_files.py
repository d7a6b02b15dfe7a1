"""A wrong value is named before a model or data is opened: here none of them exists."""

import pytest

CASES = """
generate --model X --prompt cat | --temperature -1 | temperature
generate --model X --prompt cat | --max-new-tokens -1 | max_new_tokens
generate --model X --prompt cat | --top-k 0 | top_k
generate --model X --prompt cat | --top-p 2 | top_p
generate --model X --prompt cat | --min-p -1 | min_p
generate --model X --prompt cat | --repetition-penalty 0 | repetition_penalty
generate --model X --prompt cat | --beams 0 | beams
generate --model X --prompt cat | --beams 2 --temperature 1 | beam search
generate --model X --prompt cat | --beams 2 --length-penalty nan | length_penalty
generate --model X --prompt cat | --overflow x | overflow
generate --model X --prompt cat | --seed -1 | seed
generate --model X --prompt cat | --threads 0 | threads
generate --model X --prompt cat | --threads 9999999 | threads
data inspect X | --encoding klingon | encoding
data inspect X | --delimiter ab | delimiter
data split --data X --out Y | --columns answers=a | column
finetune classify --base X --data Y | --encoding undefined | encoding
finetune classify --base X --data Y | --base random:huge | base
finetune instruct --base X --data Y --lora-rank 8 | --lora-alpha nan | lora_alpha
finetune instruct --base X --data Y --lora-rank 8 | --lora-alpha inf | lora_alpha
finetune instruct --base X --data Y --lora-rank 8 | --lora-dropout 1 | dropout
finetune prefer --base X --data Y | --beta inf | beta
evaluate classify --model X --data Y | --delimiter ab | delimiter
pretrain --data X | --encoding punycode | encoding
evaluate loss --model X --data Y | --encoding klingon | encoding
generate --model X --prompt cat | --device x | device
chat --model X | --max-new-tokens -1 | max_new_tokens
chat --model X | --memory -1 | memory
classify --model X cat | --batch-size 0 | batch_size
evaluate loss --model X --data Y | --stride 0 | stride
evaluate loss --model X --data Y | --batch-size 0 | batch_size
evaluate task --model X --data Y | --limit 0 | limit
evaluate task --model X --data Y | --batch-size 0 | batch_size
evaluate task --model X --data Y | --max-new-tokens 0 | max_new_tokens
evaluate memorization --model X --data Y | --n-samples 0 | n_samples
evaluate memorization --model X --data Y | --max-new-tokens 0 | max_new_tokens
evaluate memorization --model X --data Y | --temperature -1 | temperature
evaluate memorization --model X --data Y | --top-k 0 | top_k
evaluate memorization --model X --data Y | --top-p 0 | top_p
evaluate judge --answers X --judge local:Y | --workers 0 | workers
evaluate judge --answers X --judge local:Y | --control-items -1 | control_items
evaluate judge --answers X --judge ollama:Y | --num-ctx 0 | num_ctx
evaluate judge --answers X --judge ollama:Y | --patience.attempts 0 | attempts
evaluate judge --answers X --judge ollama:Y | --patience.timeout-s 0 | timeout_s
evaluate judge --answers X --judge bad | --workers 1 | judge
finetune classify --base X --data Y | --batch-size 0 | batch_size
finetune classify --base X --data Y | --learning-rate -1 | learning_rate
finetune classify --base X --data Y | --max-length 0 | max_length
finetune classify --base X --data Y | --lora-rank 0 | lora_rank
finetune classify --base X --data Y | --drop-rate 2 | drop_rate
finetune instruct --base X --data Y | --max-length 0 | max_length
finetune instruct --base X --data Y | --max-new-tokens 0 | max_new_tokens
finetune instruct --base X --data Y | --template nope | template
finetune instruct --base X --data Y | --drop-rate 2 | drop_rate
finetune prefer --base X --data Y | --beta -1 | beta
finetune prefer --base X --data Y | --epochs 0 | epochs
pretrain --data X | --max-steps 0 | max_steps
pretrain --data X | --model.n-heads 0 | n_heads
pretrain --data X | --model.drop-rate 2 | drop_rate
pretrain --data X | --tokenizer.vocab-size 3 | vocab_size
pretrain --data X | --val-fraction 2 | val_fraction
pretrain --data X --model.emb-dim 16 | --model.n-heads 3 | n_heads
tokenizer train --data X | --vocab-size 3 | vocab_size
data inspect X | --context-length 0 | context_length
data inspect X | --compare-at-most -1 | compare_at_most
data inspect X | --show -1 | show
data inspect X | --template nope | template
convert X Y --to hf | --context-length 0 | context_length
convert X Y --to hf | --dtype q8_0 | q8_0
data fetch hf:X --out Z --columns text | --most-rows 0 | most_rows
run quickstart | --pretrain.max-steps 0 | max_steps
run quickstart | --classify.batch-size 0 | batch_size
evaluate compare X Y | --samples 0 | samples
"""


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_a_wrong_value_is_named_before_the_missing_file(run, case):
    command, flags, name = case.split(" | ")
    code, out, err = run(f"{command} {flags}")
    assert code == 2
    assert out == ""
    assert name in err or name.replace("_", "-") in err
    assert "check the path" not in err


OTHERS = ("run ", "data fetch", "evaluate judge")  # work without a file, or ask a service


@pytest.mark.parametrize(
    "command", sorted({c.split(" | ")[0] for c in CASES.strip().splitlines() if not c.startswith(OTHERS)})
)
def test_the_same_commands_with_good_values_get_as_far_as_their_files(run, command):
    code, _, err = run(command)
    assert code in (2, 3)
    assert " X" in f" {err.partition('error:')[2]}" or " Y " in err
