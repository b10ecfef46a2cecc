"""The management API, tried by schemathesis from its own description: whatever is sent, no answer is a failure of the
gateway, every answer is as described, and what the description forbids is refused.
"""
import json
import urllib.request

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from programs import MASTER_KEY

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]


def ask(url: str, key: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"x-litellm-api-key": key, "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def admin(keyed) -> dict:
    """An admin's key, at whose gateway some people and keys are there to be found."""
    made = ask(f"{keyed.url}/user/new", MASTER_KEY, {"user_id": "fuzz", "user_role": "proxy_admin"})
    ask(f"{keyed.url}/key/generate", MASTER_KEY, {"key_alias": "0", "user_id": "0", "metadata": {"a": [1]}})
    keyed.secrets.append(made["key"])
    return {"x-litellm-api-key": made["key"]}


@pytest.fixture(scope="module")
def description(keyed, admin):
    return schemathesis.openapi.from_url(f"{keyed.url}/openapi.json", headers=admin)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_sent(description, admin, mode):
    tried = set()
    operations = [result.ok() for result in description.get_all_operations()]
    for operation in operations:

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            tried.add(operation.label)
            case.call_and_validate(headers=admin, checks=CHECKS)

        try:
            holds()
        except Unsatisfiable:
            # An operation without input has nothing that could be wrong.
            assert mode == GenerationMode.NEGATIVE, operation.label
    # Half of them have no input that could be wrong.
    assert len(tried) >= len(operations) // (1 if mode == GenerationMode.POSITIVE else 2) >= 15, tried


def test_nothing_that_was_sent_took_the_key_that_it_was_sent_with(keyed, admin):
    assert ask(f"{keyed.url}/key/info", admin["x-litellm-api-key"])["info"]["user_id"] == "fuzz"
