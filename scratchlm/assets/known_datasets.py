"""Larger public data sets by name: for every kind of training, each with its licence and what is known of its bytes.

A sha256 stands here where the source publishes it (Hugging Face shows it for every large file, the others' are in
their download tables) or where several independent projects pin the same one. Where neither is so it is None: the
bytes that come first are trusted and remembered. Addresses name a revision where the host has revisions.
"""

from __future__ import annotations

from scratchlm.assets.known_files import GITHUB_RAW, Archive, Asset

HUGGING_FACE = "https://huggingface.co/datasets"
AG_NEWS = f"{GITHUB_RAW}/mhjabreel/CharCnn_Keras/555590db4219b1243abb1918effd6a7425a2d75f/data/ag_news_csv"
ALPACA = f"{GITHUB_RAW}/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a"
DOLLY = f"{HUGGING_FACE}/databricks/databricks-dolly-15k/resolve/bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a"
TINY_STORIES = f"{HUGGING_FACE}/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
FINEWEB = f"{HUGGING_FACE}/HuggingFaceFW/fineweb/resolve/9bb295ddab0e05d785b879661af7260fed5140fc"
WIKITEXT_2 = (
    f"{HUGGING_FACE}/ggml-org/ci/resolve/927b3642933080f1b0e811e2f916e14c292992f9/wikitext-2-raw-v1.zip",
    "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
    "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-raw-v1.zip",
)
WIKITEXT_LICENCE = "CC BY-SA 3.0 and GFDL (Wikipedia's authors; Merity and others 2016)"
AG_NEWS_LICENCE = "none stated; for research and non-commercial use (ComeToMyHead; Zhang and others 2015)"
TINY_STORIES_LICENCE = "CDLA-Sharing-1.0 (Eldan and Li 2023)"


def _wikitext(side: str, *, size_bytes: int, sha256: str, what: str) -> Asset:
    member = f"wikitext-2-raw/wiki.{side}.raw"
    return Asset(
        id=f"wikitext_2/{side}.txt",
        urls=WIKITEXT_2,
        size_bytes=size_bytes,
        sha256=sha256,
        licence=WIKITEXT_LICENCE,
        purpose=f"WikiText-2, {what}: good Wikipedia articles, for pre-training and comparing",
        archive=Archive(
            member=member,
            size_bytes=4_721_645,
            sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
        ),
    )


DATASETS = (
    Asset(
        id="imdb/aclImdb_v1.tar.gz",
        urls=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
        size_bytes=84_125_825,
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        licence="none stated; cite Maas and others 2011",
        purpose="50,000 film reviews marked pos or neg, for classification fine-tuning",
    ),
    Asset(
        id="ag_news/train.csv",
        urls=(f"{AG_NEWS}/train.csv",),
        size_bytes=29_470_338,
        sha256="76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
        licence=AG_NEWS_LICENCE,
        purpose="120,000 news items of four topics, for classification fine-tuning",
    ),
    Asset(
        id="ag_news/test.csv",
        urls=(f"{AG_NEWS}/test.csv",),
        size_bytes=None,
        sha256="521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
        licence=AG_NEWS_LICENCE,
        purpose="7,600 news items of four topics, to test on",
    ),
    Asset(
        id="alpaca/alpaca_data.json",
        urls=(f"{ALPACA}/alpaca_data.json",),
        size_bytes=None,
        sha256="2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419",
        licence="CC BY-NC 4.0 (Taori and others 2023); answers written by a model of OpenAI",
        purpose="52,002 instructions with answers, for instruction fine-tuning",
    ),
    Asset(
        id="dolly/databricks-dolly-15k.jsonl",
        urls=(f"{DOLLY}/databricks-dolly-15k.jsonl",),
        size_bytes=13_085_339,
        sha256="2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
        licence="CC BY-SA 3.0 (Databricks, 2023; parts from Wikipedia)",
        purpose="15,011 instructions with answers written by people, for instruction fine-tuning",
    ),
    Asset(
        id="tiny_stories/train.txt",
        urls=(f"{TINY_STORIES}/TinyStoriesV2-GPT4-train.txt",),
        size_bytes=2_227_753_162,
        sha256="6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
        licence=TINY_STORIES_LICENCE,
        purpose="2.7 million stories in a small child's words (version 2), for pre-training",
    ),
    Asset(
        id="tiny_stories/valid.txt",
        urls=(f"{TINY_STORIES}/TinyStoriesV2-GPT4-valid.txt",),
        size_bytes=22_502_601,
        sha256="6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
        licence=TINY_STORIES_LICENCE,
        purpose="stories of the same kind to validate on; small enough to train a first model",
    ),
    _wikitext(
        "train",
        size_bytes=10_940_747,
        sha256="6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57",
        what="training",
    ),
    _wikitext(
        "valid",
        size_bytes=1_146_846,
        sha256="4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7",
        what="validation",
    ),
    _wikitext(
        "test",
        size_bytes=1_290_590,
        sha256="173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
        what="test",
    ),
    Asset(
        id="fineweb/sample-10BT-014.parquet",
        urls=(f"{FINEWEB}/sample/10BT/014_00000.parquet",),
        size_bytes=None,
        sha256=None,
        licence="ODC-By 1.0, and Common Crawl's terms of use (Penedo and others 2024)",
        purpose="the smallest file of FineWeb's sample of web pages, about half a gigabyte, for pre-training",
    ),
)
