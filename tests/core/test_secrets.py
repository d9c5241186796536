"""Tokens, passwords and signatures do not appear in what is shown."""

import pytest

from flax_distil.core import secrets
from flax_distil.core.nested import build, flatten
from flax_distil.core.secrets import remember_secret, without_secrets
from flax_distil.evaluation.config import EvalConfig

SECRET = "canary0123456789"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"{{'authorization': 'Bearer {SECRET}', 'a': 1}}", "{'authorization': '***', 'a': 1}"),
        (f"token hf_{SECRET}abc", "token ***"),
        (f"https://me:{SECRET}@host/a.wav: 403", "https://***@host/a.wav: 403"),
        (f"GET 's3://b/a.wav?X-Amz-Signature={SECRET}&b=1'", "GET 's3://b/a.wav?***'"),
        (f"<a href=\"https://h/a?sig={SECRET}\">", "<a href=\"https://h/a?***\">"),
    ],
)  # fmt: skip
def test_secrets_are_hidden_wherever_they_stand(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text", ["who? me@home", "gs://bucket/a-{00..99}.tar", "hf_hub is slow", "a bearer", "?"]
)
def test_other_texts_stay(text):
    assert without_secrets(text) == text


def test_tokens_that_were_given_are_hidden_whatever_they_look_like(monkeypatch):
    monkeypatch.setattr(secrets, "_remembered", set())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kkkkkkkkkk")
    remember_secret("odd/Token=1")
    remember_secret("a")  # would be found everywhere
    assert without_secrets("a odd/Token=1 kkkkkkkkkk b") == "a *** *** b"


def test_settings_that_are_written_hold_no_password_of_an_address():
    address = f"https://me:{SECRET}@host/rows.jsonl?sig={SECRET}"
    config = build(EvalConfig, model_name_or_path="m", dataset_name=address, output_dir="o")
    assert SECRET not in str(flatten(config))
    assert config.data.dataset_name == address
