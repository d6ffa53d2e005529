#!/usr/bin/env bash
# Every endpoint, with curl. The service is the one at $HAILO_CLIP_URL, else on this machine.
set -euo pipefail
cd "$(dirname "$0")"

url=${HAILO_CLIP_URL:-http://localhost:5000}
key=${HAILO_CLIP_API_KEY:-}

# The key travels in a file that is none, so that it shows in no list of processes.
ask() { curl --silent --show-error --fail-with-body -H @<(printf '%s' "${key:+X-API-Key: $key}") "$@"; echo; }

echo "# Is it ready? Which model does it run?"
ask "$url/readyz"
ask "$url/v1/models"

echo "# An image as base64 in JSON"
image=$(base64 < photos/cat.jpg | tr -d '\n')
ask "$url/v1/classify" -H "Content-Type: application/json" --data @- <<JSON
{"image": "data:image/jpeg;base64,$image", "prompts": ["a cat", "a dog", "a cup of coffee"], "top_k": 2}
JSON

echo "# An image as the body, the other fields in the query"
ask "$url/v1/classify?prompts=a+rocket&prompts=a+temple&score_mode=softmax" \
    -H "Content-Type: image/jpeg" --data-binary @photos/rocket.jpg

echo "# Two images in a form, with templates"
ask "$url/v1/classify" -F images=@photos/cat.jpg -F images=@photos/coffee.jpg \
    -F prompts="cat" -F prompts="cup of coffee" -F templates="a photo of a {}" -F top_k=1

echo "# A stored label set: put, use, remove"
ask -X PUT "$url/v1/label-sets/things" -H "Content-Type: application/json" \
    --data '{"prompts": ["a flower", "a temple"], "negative_prompts": ["a wall"]}'
ask "$url/v1/classify?label_set=things&score_mode=softmax" \
    -H "Content-Type: image/jpeg" --data-binary @photos/flower.jpg
ask "$url/v1/label-sets"
ask -X DELETE "$url/v1/label-sets/things"

echo "# Embeddings (the first 60 characters)"
ask "$url/v1/embed/image" -H "Content-Type: image/jpeg" --data-binary @photos/temple.jpg | cut -c1-60
ask "$url/v1/embed/text" -H "Content-Type: application/json" --data '{"text": "a temple"}' | cut -c1-60

echo "# A deadline of two seconds, an id of one's own, and the headers of the answer"
ask --include "$url/v1/embed/text" -H "Content-Type: application/json" --data '{"text": "a temple"}' \
    -H "X-Deadline-Ms: 2000" -H "X-Request-Id: example-1" | grep -i "^x-\|^server-timing"
