"""schemathesis against a real server: positive and negative requests of every phase, from the OpenAPI document."""

import json
import os
import subprocess
import sys

import pytest

from tests.serving.conftest import running, served_models

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


def with_known_models(document: dict, names: list[str]) -> dict:
    """The document with a list of models in place of any text, so that requests reach them."""
    for schema in document["components"]["schemas"].values():
        model = schema.get("properties", {}).get("model")
        if model is not None and schema.get("additionalProperties") is False:
            is_optional = "anyOf" in model
            schema["properties"]["model"] = {"enum": [*names, *([None] if is_optional else [])]}
    return document


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_request_fails_in_the_server_or_has_an_undocumented_answer(language_models, tmp_path):
    n_examples = os.environ.get("SCRATCHLM_FUZZ_EXAMPLES", "25")
    with running(served_models(language_models)) as server:
        document = with_known_models(server.get("/openapi.json").json(), list(language_models))
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", str(tmp_path / "openapi.json")),
                *("--url", server.url, "--mode", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--checks", CHECKS, "--max-examples", n_examples, "--seed", "1", "--no-color"),
                *("--request-timeout", "60", "--continue-on-failure"),
            ],
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.wait_until_idle(20)
        assert server.get("/health").status_code == 200
