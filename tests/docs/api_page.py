"""docs/api.md, written from the source of the OpenAPI document.

Renew it with ``python -m tests.docs.api_page``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hailo_clip import __version__
from hailo_clip.api.openapi import INFO, document
from hailo_clip.api.openapi_causes import causes
from hailo_clip.api.openapi_headers import NAMES
from hailo_clip.api.openapi_parts import Facts

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
FACTS = Facts(__version__, keys=True)

HEAD = f"""# The API

This page is made from the source of the OpenAPI document, which a running service has at `/openapi.json`, and
at `/docs` to read and try out. Renew it with `python -m tests.docs.api_page`.

{INFO}

Examples are answers of the model `demo`; photos in base64 are cut short here. An image comes in one of three
ways:

```sh
U=http://localhost:5000 P=examples/photos/cat.jpg
curl -s $U/v1/classify -H 'Content-Type: application/json' \\
  -d "{{\\"image\\": \\"$(base64 -w0 < $P)\\", \\"prompts\\": [\\"a cat\\", \\"a dog\\"]}}"
curl -s $U/v1/classify -F image=@$P -F 'prompts=a cat' -F 'prompts=a dog'
curl -s "$U/v1/classify?prompts=a%20cat&prompts=a%20dog" -H 'Content-Type: image/jpeg' --data-binary @$P
```
"""

LONG = 100


def page() -> str:
    """The whole page."""
    api = document(FACTS)
    parts = [HEAD, *keys(), *codes(), *headers(api)]
    for tag in api["tags"]:
        parts.append(f"## {tag['name']}\n")
        for path, methods in api["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [tag["name"]]:
                    parts += endpoint(api, method, path, operation)
    return "\n".join(parts)


def keys() -> list[str]:
    return [
        "## API keys\n",
        "Where `auth.keys_file` is set, a request carries its key as `Authorization: Bearer hc_...` or as "
        "`X-API-Key: hc_...`.\nWithout one: `/health`, `/livez`, `/readyz`, `/openapi.json`, `/docs`, and "
        "`/metrics` with `auth.metrics: open`.\n",
    ]


def codes() -> list[str]:
    """One table of every status code and its cause."""
    rows = [
        (str(cause.status), cause.when, f"`{cause.message.strip()}`", cause.retry) for cause in causes(FACTS)
    ]
    note = (
        "200, 201 and 204 mean success, 304 that a document is unchanged. In logs and metrics 499 stands for "
        "a client that\nwent away before its answer.\n"
    )
    return ["## Status codes\n", note, *table(("code", "cause", "says, for example", "retry"), rows)]


def headers(api: dict[str, Any]) -> list[str]:
    given = [(f"`{p['name']}`", p["description"]) for p in api["components"]["parameters"].values()]
    got = [(f"`{NAMES[name]}`", h["description"]) for name, h in api["components"]["headers"].items()]
    return [
        "## Headers of requests\n",
        *table(("header", "meaning"), given),
        "## Headers of answers\n",
        *table(("header", "meaning"), got),
    ]


def endpoint(api: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"### {method.upper()} {path}\n", f"{operation['summary']}. {operation['description']}\n"]
    given = [resolved(api, p) for p in operation["parameters"]]
    rows = [
        (f"`{p['name']}`", p["in"], kind(p["schema"]), p["description"]) for p in given if p["in"] != "header"
    ]
    names = ", ".join(f"`{p['name']}`" for p in given if p["in"] == "header")
    if rows:
        parts += table(("parameter", "in", "value", "meaning"), rows)
    parts.append(f"Headers: {names}.\n")
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        parts += [f"**{media}**\n", *described(api, body["schema"]), *shown(body.get("examples", {}))]
    for status, answer in operation["responses"].items():
        if status < "400":
            found = resolved(api, answer)
            parts.append(f"**{status}** {found['description']}\n")
            for content in found.get("content", {}).values():
                parts += [*described(api, content["schema"]), *shown(content.get("examples", {}))]
    wrong = ", ".join(status for status in operation["responses"] if status >= "400")
    return [*parts, f"What can go wrong: {wrong}.\n"]


def described(api: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """The fields of a schema."""
    node = resolved(api, node)
    if "properties" not in node:
        choices = node.get("oneOf", [])
        if any("properties" in resolved(api, choice) for choice in choices):
            return [line for choice in choices for line in described(api, choice)]
        return [f"{kind(node)}\n"]
    needed = node.get("required", [])
    rows = [
        (
            f"`{name}`",
            kind(inner),
            "yes" if name in needed else "",
            resolved(api, inner).get("description", ""),
        )
        for name, inner in node["properties"].items()
    ]
    return [*table(("field", "value", "needed", "meaning"), rows), *one_of(node)]


def one_of(node: dict[str, Any]) -> list[str]:
    """Which fields exclude each other."""
    lists = [part["oneOf"] for part in (node, *node.get("allOf", [])) if "oneOf" in part]
    named = [
        " and ".join(f"`{one['required'][0]}`" for one in each) for each in lists if "required" in each[0]
    ]
    return [f"Exactly one of {', exactly one of '.join(named)}.\n"] if named else []


def kind(node: dict[str, Any]) -> str:
    """What values a schema allows, in words."""
    if "$ref" in node:
        return str(node["$ref"]).rsplit("/", 1)[-1]
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return " or ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    if "oneOf" in node:
        return " or ".join(dict.fromkeys(map(kind, node["oneOf"])))
    types = node.get("type", "any")
    word = types if isinstance(types, str) else " or ".join(types)
    if word == "array":
        most = f"{node['minItems']} to {node['maxItems']} " if "maxItems" in node else ""
        if node.get("minItems") == node.get("maxItems") is not None:
            most = f"{node['minItems']} "
        return f"array of {most}{kind(node['items'])}"
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None:
        word += f" from {low} to {high}" if high is not None else f" of at least {low}"
    return word + (f", default `{json.dumps(node['default'])}`" if "default" in node else "")


def shown(examples: dict[str, Any]) -> list[str]:
    """Examples as JSON; long strings are cut."""
    lines = []
    for one in examples.values():
        if "value" in one:
            text = json.dumps(short(one["value"]), indent=2, ensure_ascii=False)
            lines += [f"{one['summary']}:\n", f"```json\n{text}\n```\n"]
        else:
            lines += [f"{one['summary']}: `{one['externalValue']}` of a running service.\n"]
    return lines


def short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONG * 2:
        return value[:40] + "..."
    if isinstance(value, list):
        return [short(inner) for inner in value]
    return {k: short(v) for k, v in value.items()} if isinstance(value, dict) else value


def resolved(api: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: Any = api
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return {**found, **{k: v for k, v in node.items() if k != "$ref"}}


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table, and the empty line after it."""
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [*(f"| {line} |" for line in lines), ""]


if __name__ == "__main__":
    PAGE.write_text(page())
