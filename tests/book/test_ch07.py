"""The figures that the book prints in chapter 7, its batches, and its judge against a small server."""

import functools
import json
import os

import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from scratchlm.book import ch05, ch07
from scratchlm.core.errors import ConfigError, DataError, DownloadError, ServiceError
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.prompt_files import read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from tests.servers import judge_server as faults

ROWS = ([0, 1, 2, 3, 4], [5, 6], [7, 8, 9])  # the chapter's toy batch
EOT = 50256
NO = -100


@pytest.fixture(scope="session")
def gpt2(real_data):
    folder = real_data / "gpt2_bpe"
    return load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe", engine="tiktoken")


@pytest.fixture(scope="session")
def entries(real_data):
    return json.loads((real_data / "instruction" / "instruction-data.json").read_text(encoding="utf-8"))


def test_the_first_draft_pads_the_books_batch():
    assert ch07.custom_collate_draft_1(ROWS).tolist() == [
        [0, 1, 2, 3, 4],
        [5, 6, EOT, EOT, EOT],
        [7, 8, 9, EOT, EOT],
    ]


def test_the_second_draft_has_targets_with_padding():
    inputs, targets = ch07.custom_collate_draft_2(ROWS)
    assert torch.equal(inputs, ch07.custom_collate_draft_1(ROWS))
    assert targets.tolist() == [[1, 2, 3, 4, EOT], [6, EOT, EOT, EOT, EOT], [8, 9, EOT, EOT, EOT]]


def test_the_books_batch_masks_the_padding_but_its_first():
    inputs, targets = ch07.custom_collate_fn(ROWS)
    assert torch.equal(inputs, ch07.custom_collate_draft_1(ROWS))
    assert targets.tolist() == [[1, 2, 3, 4, EOT], [6, EOT, NO, NO, NO], [8, 9, EOT, NO, NO]]


def test_padding_mask_and_length_can_be_others():
    inputs, targets = ch07.custom_collate_fn(ROWS, 1, -7, 2)
    assert inputs.tolist() == [[0, 1], [5, 6], [7, 8]]
    assert targets.tolist() == [[1, 2], [6, 1], [8, 9]]
    _, targets = ch07.custom_collate_fn(ROWS, 1, -7)
    assert targets[1].tolist() == [6, 1, -7, -7, -7]


@pytest.mark.parametrize("length", [0, -3])
def test_a_length_below_1_is_refused(length):
    """Python would cut -3 ids off the end."""
    with pytest.raises(ConfigError, match=f"at least 1, got {length}"):
        ch07.custom_collate_fn([[1, 2, 3]], allowed_max_length=length)


def test_an_end_of_text_inside_a_row_stays_a_target():
    _, targets = ch07.custom_collate_fn([[1, EOT, 2], [3, 4, 5]])
    assert targets[0].tolist() == [EOT, 2, EOT]


def test_a_masked_instruction_leaves_answer_and_end():
    inputs, targets = ch07.custom_collate_fn([(3, ROWS[0]), (1, ROWS[1])], mask_instruction=True)
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, EOT, EOT, EOT]]
    assert targets.tolist() == [[NO, NO, 3, 4, EOT], [6, EOT, NO, NO, NO]]


def test_data_set_and_batch_must_agree_on_the_mask():
    with pytest.raises(ConfigError, match="rows come without"):
        ch07.custom_collate_fn(ROWS, mask_instruction=True)
    with pytest.raises(ConfigError, match="rows come with the length"):
        ch07.custom_collate_fn([(3, ROWS[0])])


def test_an_entry_becomes_alpacas_prompt():
    head = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nSay it."
    )
    assert ch07.format_input({"instruction": "Say it.", "input": "", "output": "x"}) == head
    assert ch07.format_input({"instruction": "Say it."}) == head
    assert ch07.format_input({"instruction": "Say it.", "input": "it"}) == head + "\n\n### Input:\nit"
    with pytest.raises(DataError, match="its keys are: output"):
        ch07.format_input({"output": "x"})


def test_an_item_is_prompt_mark_and_answer(tiny_tokenizer):
    entry = {"instruction": "Say it.", "input": "it", "output": "The cat <|endoftext|>"}
    data = ch07.InstructionDataset([entry], tiny_tokenizer)
    text = ch07.format_input(entry) + "\n\n### Response:\nThe cat <|endoftext|>"
    assert (len(data), data[0]) == (1, tiny_tokenizer.encode(text))
    assert data.encoded_texts == [data[0]]


@pytest.mark.parametrize("output", ["The cat", "  The cat", ""])
def test_the_mask_ends_where_the_answer_begins(tiny_tokenizer, output):
    entry = {"instruction": "Say it.", "input": "", "output": output}
    ((n_prompt, ids),) = ch07.InstructionDataset([entry], tiny_tokenizer, mask_instruction=True)
    prompt = tiny_tokenizer.decode(ids[:n_prompt])
    assert (ch07.format_input(entry) + "\n\n### Response:\n").startswith(prompt)
    assert tiny_tokenizer.decode(ids[n_prompt:]).strip() == output.strip()


@pytest.mark.slow  # encodes 990 entries
def test_the_loaders_have_the_books_batches(gpt2, entries):
    n_train, n_test = int(len(entries) * 0.85), int(len(entries) * 0.1)
    train, val = entries[:n_train], entries[n_train + n_test :]
    assert (len(train), n_test, len(val)) == (935, 110, 55)
    collate = functools.partial(ch07.custom_collate_fn, device="cpu", allowed_max_length=1024)
    torch.manual_seed(123)
    data = ch07.InstructionDataset(train, gpt2)
    loader = DataLoader(data, batch_size=8, collate_fn=collate, shuffle=True, drop_last=True)
    val_loader = DataLoader(ch07.InstructionDataset(val, gpt2), batch_size=8, collate_fn=collate)
    shapes = [list(inputs.shape) for inputs, _ in loader]
    assert shapes[:3] == [[8, 61], [8, 76], [8, 73]]
    assert (len(shapes), len(val_loader)) == (116, 7)


def test_the_collated_batches_train_with_chapter_5s_loss(tiny_model):
    inputs, targets = ch07.custom_collate_fn(ROWS, pad_token_id=60)
    loss = ch05.calc_loss_batch(inputs, targets, tiny_model, "cpu")
    expected = [
        -tiny_model(inputs)[row, place].log_softmax(-1)[targets[row, place]]
        for row in range(3)
        for place in range(len(ROWS[row]))
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_a_file_that_is_there_is_read_and_one_that_is_not_fetched(tmp_path):
    source, target = tmp_path / "a b.json", tmp_path / "copy.json"
    source.write_text('[{"instruction": "x"}]')
    for _ in range(2):
        assert ch07.download_and_load_file(target, source.as_uri()) == [{"instruction": "x"}]
        source.unlink(missing_ok=True)  # the second time it is not needed
    target.write_text("{")
    with pytest.raises(DataError, match="line 1"):
        ch07.download_and_load_file(target, "nowhere")
    with pytest.raises(DownloadError, match="not an http"):
        ch07.download_and_load_file(tmp_path / "other.json", "nowhere:a")
    with pytest.raises(DataError, match="cannot be read"):
        ch07.download_and_load_file(tmp_path / "other.json", source.as_uri())


def test_a_running_process_is_found_by_part_of_its_name(monkeypatch):
    name = psutil.Process(os.getpid()).name()
    assert ch07.check_if_running(name[:5])
    assert not ch07.check_if_running("no process is called this")
    nameless = type("Nameless", (), {"info": {"name": None}})()
    monkeypatch.setattr(psutil, "process_iter", lambda attrs: [nameless])
    assert not ch07.check_if_running("anything")


def test_ollama_runs_when_its_port_answers(judge_server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", judge_server.url)
    assert ch07.check_if_running("ollama")
    judge_server.stop()
    assert not ch07.check_if_running("ollama")


def test_a_reply_is_put_together_from_the_stream(judge_server):
    judge_server.reply = lambda messages: "Llamas eat grass – mostly.\n\nAnd hay."
    url = f"{judge_server.url}/api/chat"
    assert ch07.query_model("What?", "llama3", url) == "Llamas eat grass – mostly.\n\nAnd hay."
    assert [asked.body for asked in judge_server.asked] == [
        {
            "model": "llama3",
            "messages": [{"role": "user", "content": "What?"}],
            "options": {"seed": 123, "temperature": 0, "num_ctx": 2048},
        }
    ]


def test_without_an_address_the_environments_is_asked(judge_server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", judge_server.url.removeprefix("http://"))
    assert ch07.query_model("What?") == "85"
    assert ch07.generate_model_scores([{"instruction": "a", "output": "b", "answer": "c"}], "answer") == [85]


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            faults.refuses(404, "model 'llama3' not found"),
            "404: .*model 'llama3' not found.*ollama pull llama3",
        ),
        (faults.error_inside("out of memory"), "the error out of memory"),
        (faults.garbage(b"<html>\n"), "as JSON, got '<html>'"),
        (faults.garbage(b"[]\n"), "chat messages"),
        (faults.garbage(b'{"message": 3}\n'), "chat messages"),
        (faults.garbage(b'{"message": {"content": 3}}\n'), "chat messages"),
        (faults.cut(after=1), "stopped before"),
        (faults.garbage(b""), "stopped before"),
        (faults.reset(after=1), "does not respond at"),
        (faults.ends_by("length"), "cut off for the reason 'length'"),
    ],
)
def test_what_is_no_reply_is_a_service_error(judge_server, fault, found):
    judge_server.faults = [fault]
    with pytest.raises(ServiceError, match=found):
        ch07.query_model("What?", url=f"{judge_server.url}/api/chat")


def test_a_request_beyond_the_context_is_a_service_error(judge_server):
    with pytest.raises(ServiceError, match="truncated to 1026 tokens"):
        ch07.query_model("What? " * 4000, url=f"{judge_server.url}/api/chat")


def test_nobody_there_is_a_service_error(judge_server):
    judge_server.stop()
    with pytest.raises(ServiceError, match="ollama serve"):
        ch07.query_model("What?", url=f"{judge_server.url}/api/chat")
    with pytest.raises(ServiceError, match="ollama serve"):
        ch07.query_model("What?", url="no address")


def test_scores_are_the_whole_numbers_and_the_rest_is_counted(judge_server, capsys):
    data = [
        {"instruction": f"task {i}", "input": "", "output": f"right {i}", "answer": f"mine {i}"}
        for i in range(4)
    ]
    judge_server.faults = [faults.says(reply) for reply in ("85", "about 40", " 95\n", "")]
    scores = ch07.generate_model_scores(data, "answer", url=f"{judge_server.url}/api/chat")
    assert scores == [85, 95]
    assert isinstance(scores, list)
    assert scores.unreadable == ((1, "about 40"), (3, ""))
    assert capsys.readouterr().out == (
        "Could not convert score: about 40\nCould not convert score: \n"
        "Number of scores: 2 of 4; the other replies were not integers\n"
    )
    asked = judge_server.asked[0].messages[0]["content"]
    assert all(part in asked for part in (ch07.format_input(data[0]), "right 0", "mine 0"))


def test_the_book_and_the_command_ask_in_the_same_words_and_read_alike(judge_server, capsys):
    data = [{"instruction": f"task {i}", "output": f"right {i}", "answer": f"mine {i}"} for i in range(3)]
    judge_server.faults = [faults.says(reply) for reply in ("-5", "1000", "80/100")]
    assert ch07.generate_model_scores(data, "answer", url=f"{judge_server.url}/api/chat") == [80]
    assert capsys.readouterr().out.count("Could not convert score") == 2
    item = Item(
        instruction=ch07.format_input(data[0]),
        input="",
        reference=data[0]["output"],
        answer=data[0]["answer"],
    )
    [question] = PROTOCOLS["score"].ask(read_prompt("score"), item)
    assert judge_server.asked[0].messages == question.messages


@pytest.mark.parametrize("missing", ["output", "model_response"])
def test_an_entry_that_cannot_be_judged_is_an_error(missing):
    entry = {"instruction": "Say a.", "output": "a", "model_response": "a"}
    del entry[missing]
    with pytest.raises(DataError, match=f"must have the key '{missing}'"):
        ch07.generate_model_scores([entry], "model_response")


def test_a_judge_in_trouble_gives_no_scores(judge_server):
    judge_server.faults = [None, faults.refuses(500, "oh")]
    data = [{"instruction": "a", "output": "b", "answer": "c"}] * 2
    with pytest.raises(ServiceError, match=r"500: .*oh"):
        ch07.generate_model_scores(data, "answer", "llama3", url=f"{judge_server.url}/api/chat")
