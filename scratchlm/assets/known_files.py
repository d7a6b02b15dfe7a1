"""The data sets that scratchlm knows: where each comes from, and its exact bytes."""

from __future__ import annotations

from dataclasses import dataclass

GITHUB_RAW = "https://raw.githubusercontent.com"
BOOK_COMMIT = f"{GITHUB_RAW}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
CHAR_RNN_COMMIT = f"{GITHUB_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
OPENAI_ENCODINGS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """The zip file that holds an asset as one of its members."""

    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One outside file: a promise about its bytes, and the addresses that may keep it."""

    id: str  # relative path, in every folder of assets
    urls: tuple[str, ...]  # the origin, then mirrors
    size_bytes: int | None  # None: no source tells it
    sha256: str | None  # None: no source tells it, so the bytes that come first are trusted and remembered
    licence: str
    purpose: str
    archive: Archive | None = None  # what the URLs deliver, when it is not the file itself
    settings: tuple[tuple[str, int], ...] = ()  # what must stand in it, if it is a JSON table
    command: str = ""  # what fetches it; empty: `scratchlm data fetch` with its id

    @property
    def fetch_command(self) -> str:
        """What a user types to get it."""
        return self.command or f"scratchlm data fetch {self.id}"

    @property
    def size(self) -> str:
        """How large it is, for people."""
        return "size unknown" if self.size_bytes is None else f"{self.size_bytes:,} bytes"


ASSETS = (
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
