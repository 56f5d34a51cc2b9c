"""Reads what is in dashboards/ with the models of Datadog's own API client: a field that Datadog does not know, a value
that it does not take or a widget of no known kind is an error. Asks nobody."""

import json
import pathlib
import sys

from datadog_api_client import Configuration
from datadog_api_client.model_utils import ModelComposed, ModelNormal, UnparsedObject, validate_and_convert_types
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.monitor import Monitor

DASHBOARDS = pathlib.Path("dashboards")
DOCUMENTS = {
    **{str(path): Dashboard for path in sorted(DASHBOARDS.glob("*.json"))},
    **{str(path): Monitor for path in sorted(DASHBOARDS.glob("monitors/*.json"))},
}


def troubles(value, path):
    """What the client kept only because it keeps everything. It takes unknown things along, silently."""
    if isinstance(value, UnparsedObject):
        yield f"{path}: of no known kind: {json.dumps(value.to_dict())[:300]}"
    elif isinstance(value, ModelComposed):
        for instance in value._composed_instances:
            yield from troubles(instance, path)
    elif isinstance(value, ModelNormal):
        for name, field in value._data_store.items():
            if name in value.openapi_types:
                yield from troubles(field, f"{path}.{name}")
            else:
                yield f"{path}: {type(value).__name__} has no field {name}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from troubles(item, f"{path}[{index}]")


found = []
for file, model in DOCUMENTS.items():
    with open(file, encoding="utf-8") as text:
        document = json.load(text)
    try:
        parsed = validate_and_convert_types(document, (model,), [file], True, True, Configuration())
    except Exception as error:
        found.append(f"{file}: {error}")
    else:
        found.extend(troubles(parsed, file))
print("\n".join(found) or f"{len(DOCUMENTS)} documents, no trouble")
sys.exit(bool(found) or not DOCUMENTS)
