"""The registry of known data sets and tokenizer files: where each comes from, its licence, size and sha256.

The sha256 is given where the source publishes it (Hugging Face shows it for every large file, others list it in their
download tables) or where several independent projects pin the same one. Elsewhere it is None: the first bytes received
are trusted, and their sha256 is recorded. Addresses name a revision where the host has revisions.
"""

from __future__ import annotations

from dataclasses import dataclass

GITHUB_RAW = "https://raw.githubusercontent.com"
BOOK_COMMIT = f"{GITHUB_RAW}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
CHAR_RNN_COMMIT = f"{GITHUB_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
OPENAI_ENCODINGS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """The zip file that holds an asset as one of its members."""

    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One external file: its expected bytes, and the addresses to download it from."""

    id: str  # path relative to the folder of assets
    urls: tuple[str, ...]  # the origin, then mirrors
    size_bytes: int | None  # None if unknown
    sha256: str | None  # None if unknown: the first bytes received are trusted, and their sha256 is recorded
    licence: str
    purpose: str
    archive: Archive | None = None  # if the URLs lead to a zip file that holds the asset
    settings: tuple[tuple[str, int], ...] = ()  # values that a JSON file must contain
    command: str = ""  # that fetches it; if empty, `scratchlm data fetch` with its id

    @property
    def fetch_command(self) -> str:
        """The command that downloads it."""
        return self.command or f"scratchlm data fetch {self.id}"

    @property
    def size(self) -> str:
        """Its size as text."""
        return "size unknown" if self.size_bytes is None else f"{self.size_bytes:,} bytes"


ASSETS = (  # needed for the book
    Asset(
        id="gpt2_bpe/encoder.json",
        urls=(
            f"{OPENAI_ENCODINGS}/encoder.json",
            f"{BOOK_COMMIT}/ch02/02_bonus_bytepair-encoder/gpt2_model/encoder.json",
        ),
        size_bytes=1_042_301,
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        licence="Modified MIT (OpenAI, GPT-2)",
        purpose="GPT-2's vocabulary of 50,257 tokens",
    ),
    Asset(
        id="gpt2_bpe/vocab.bpe",
        urls=(
            f"{OPENAI_ENCODINGS}/vocab.bpe",
            f"{BOOK_COMMIT}/ch02/02_bonus_bytepair-encoder/gpt2_model/vocab.bpe",
        ),
        size_bytes=456_318,
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        licence="Modified MIT (OpenAI, GPT-2)",
        purpose="GPT-2's 50,000 byte-pair merges",
    ),
    Asset(
        id="sms_spam_collection/SMSSpamCollection",
        urls=(
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
        ),
        size_bytes=477_907,
        sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        licence="CC BY 4.0 (Almeida, Gomez Hidalgo, Yamakami 2011; UCI data set 228, DOI 10.24432/C5CC84)",
        purpose="5,574 text messages marked ham or spam, for classification fine-tuning",
        archive=Archive(
            member="SMSSpamCollection",
            size_bytes=203_415,
            sha256="1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
        ),
    ),
    Asset(
        id="instruction/instruction-data.json",
        urls=(f"{BOOK_COMMIT}/ch07/01_main-chapter-code/instruction-data.json",),
        size_bytes=203_524,
        sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        licence="Apache-2.0 (Sebastian Raschka)",
        purpose="the book's 1,100 instructions with answers, for instruction fine-tuning",
    ),
    Asset(
        id="text/the-verdict.txt",
        urls=(f"{BOOK_COMMIT}/ch02/01_main-chapter-code/the-verdict.txt",),
        size_bytes=20_479,
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        licence="public domain (Edith Wharton, 1908)",
        purpose="the short story that the book trains on",
    ),
    Asset(
        id="text/tinyshakespeare.txt",
        urls=(f"{CHAR_RNN_COMMIT}/data/tinyshakespeare/input.txt",),
        size_bytes=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        licence="public domain (William Shakespeare)",
        purpose="40,000 lines of plays, for pre-training at laptop size",
    ),
)


_WIKITEXT_PARTS = (  # part, size in bytes, sha256, what it is
    ("train", 10_940_747, "6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57", "training"),
    ("valid", 1_146_846, "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7", "validation"),
    ("test", 1_290_590, "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08", "test"),
)

DATASETS = (  # larger ones, for every kind of training
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
    *(
        Asset(
            id=f"wikitext_2/{part}.txt",
            urls=WIKITEXT_2,
            size_bytes=size_bytes,
            sha256=sha256,
            licence=WIKITEXT_LICENCE,
            purpose=f"WikiText-2, {what}: good Wikipedia articles, for pre-training and comparing",
            archive=Archive(
                member=f"wikitext-2-raw/wiki.{part}.raw",
                size_bytes=4_721_645,
                sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
            ),
        )
        for part, size_bytes, sha256, what in _WIKITEXT_PARTS
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
