"""The schemas of bodies and answers, with the limits that the checks themselves use. Pure."""

from __future__ import annotations

from hailo_clip.api import validation
from hailo_clip.api.fields import MAX_IMAGES, MAX_PROMPT_BYTES, MAX_PROMPTS, MAX_TEMPLATES
from hailo_clip.api.image import DEFAULT_LIMITS
from hailo_clip.api.imageheader import FORMATS
from hailo_clip.api.openai_input import BASE64, FLOAT, MAX_INPUTS
from hailo_clip.api.openapi_parts import Facts, Json, an_array, an_object, schema

IMAGE_FORMAT = "image"
"""The `format` of a string that holds an image."""

_MEGAPIXELS = f"{DEFAULT_LIMITS.max_pixels / 1e6:g}"
_FORMATS = ", ".join(FORMATS)
_EITHER_IMAGES = {"oneOf": [{"required": ["image"]}, {"required": ["images"]}]}
_LABEL_FIELDS = ("prompts", "templates", "negative_prompts")

BLANK = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""The characters of which a blank text consists, for a pattern; `\\s` means others in other languages."""

IMAGE: Json = {
    "type": "string",
    "format": IMAGE_FORMAT,
    "minLength": 1,
    "description": f"An image file ({_FORMATS}) in base64, bare or as a data URI "
    "(`data:image/...;base64,...`); at "
    f"most {DEFAULT_LIMITS.max_side} pixels a side and {_MEGAPIXELS} megapixels. Of animations the first "
    "picture "
    "is taken. URLs are not fetched.",
}
TEXT: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_PROMPT_BYTES,
    "pattern": f"[^{BLANK}]",
    "description": f"Not blank, at most {MAX_PROMPT_BYTES >> 10} KiB of UTF-8. What is beyond the model's "
    "context "
    "length is cut off.",
}
TEMPLATE: Json = {
    "type": "string",
    "maxLength": MAX_PROMPT_BYTES,
    "pattern": r"^(?:[^{]|\{(?!\}))*\{\}(?:[^{]|\{(?!\}))*$",
    "description": "Holds `{}` once, where the prompt goes.",
}
FILE: Json = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
NAME: Json = {
    "type": "string",
    "pattern": f"^{validation.LABEL_SET_NAME.pattern}$",
    "description": "Letters, digits, `.`, `_` and `-`; the first one is a letter or a digit.",
}


def texts(description: str) -> Json:
    """A list of prompts."""
    return an_array(schema("Text"), 1, MAX_PROMPTS, description)


PROMPTS = texts("What the image is compared with.")
NEGATIVES = texts("They take part in the softmax and are never shown.")
TEMPLATES = an_array(
    schema("Template"),
    1,
    MAX_TEMPLATES,
    "A prompt's vector is the mean over all templates, of length 1 again. Prompts and negative prompts, "
    "times "
    f"templates, may come to {validation.MAX_TEXTS} texts.",
)
TOP_K: Json = {
    "type": "integer",
    "minimum": 1,
    "default": validation.DEFAULT_TOP_K,
    "description": "How many of the best prompts are given.",
}
THRESHOLD: Json = {
    "type": "number",
    "minimum": 0,
    "maximum": 1,
    "default": validation.DEFAULT_THRESHOLD,
    "description": "Prompts under this score are left out.",
}
SCORE_MODE: Json = {
    "type": "string",
    "enum": [validation.COSINE, validation.SOFTMAX],
    "default": validation.COSINE,
    "description": f"`{validation.COSINE}`: the score is the cosine of image and prompt, those below 0 as 0. "
    f"`{validation.SOFTMAX}`: the probabilities over all prompts and negative prompts, with the model's own "
    "scale.",
}
LABEL_SET: Json = {**NAME, "description": "A stored label set instead of prompts."}

OPTIONS: Json = {
    "prompts": PROMPTS,
    "label_set": LABEL_SET,
    "top_k": TOP_K,
    "threshold": THRESHOLD,
    "score_mode": SCORE_MODE,
    "templates": TEMPLATES,
    "negative_prompts": NEGATIVES,
}
"""The fields of a classification besides its images, whatever form they come in."""

RULES: list[Json] = [
    {
        "oneOf": [
            {"required": ["prompts"], "not": {"required": ["label_set"]}},
            {"required": ["label_set"], "not": {"anyOf": [{"required": [f]} for f in _LABEL_FIELDS]}},
        ]
    },
    {
        "if": {"required": ["negative_prompts"]},
        "then": {"required": ["score_mode"], "properties": {"score_mode": {"const": validation.SOFTMAX}}},
    },
]
"""What these fields ask of each other."""


def requests(facts: Facts) -> Json:
    """Schemas of JSON bodies."""
    image, images = schema("Image"), an_array(schema("Image"), 1, MAX_IMAGES, "Several images.")
    part = {
        "oneOf": [
            an_object({"type": {"const": "text"}, "text": schema("Text")}),
            an_object(
                {
                    "type": {"const": "image_url"},
                    "image_url": an_object({"url": {**IMAGE, "format": "image-uri"}}),
                }
            ),
        ]
    }
    entry = {"oneOf": [schema("Text"), schema("Part")]}
    return {
        "Image": IMAGE,
        "Text": TEXT,
        "Template": TEMPLATE,
        "ClassifyRequest": an_object(
            {"image": image, "images": images, **OPTIONS}, (), allOf=[_EITHER_IMAGES, *RULES]
        ),
        "EmbedImageRequest": an_object({"image": image, "images": images}, (), **_EITHER_IMAGES),
        "EmbedTextRequest": an_object(
            {"text": schema("Text"), "texts": texts("Several texts.")},
            (),
            oneOf=[{"required": ["text"]}, {"required": ["texts"]}],
        ),
        "LabelSetRequest": an_object(
            {"prompts": PROMPTS, "templates": TEMPLATES, "negative_prompts": NEGATIVES}, ("prompts",)
        ),
        "Part": part,
        "EmbeddingsRequest": an_object(
            {
                "model": {"const": facts.model, "description": "The name of the model served."},
                "input": {
                    "oneOf": [schema("Text"), schema("Part"), an_array(entry, 1, MAX_INPUTS)],
                    "description": f"A text, an image, or a list of them, at most {MAX_INPUTS} and of these "
                    "at most "
                    f"{MAX_IMAGES} images. A string that starts with `data:image/` is an image. Lists of "
                    "tokens are "
                    "refused: another model's mean nothing to this one.",
                },
                "encoding_format": {
                    "enum": [FLOAT, BASE64, None],
                    "default": FLOAT,
                    "description": f"`{BASE64}`: little-endian float32.",
                },
                "dimensions": {
                    "enum": [facts.dimension, None],
                    "description": "Embeddings are not cut.",
                },
                "user": {"description": "Ignored."},
            },
            ("model", "input"),
        ),
    }


_FILE: Json = {**FILE, "description": "An image file."}
_FILES = an_array(_FILE, 1, MAX_IMAGES, "Image files, each a part of this name.")

# Flat, since few tools know what to make of a form with rules; they are those of the JSON bodies.
EMBED_FORM = an_object(
    {"image": _FILE, "images": _FILES}, (), description="Exactly one of `image` and `images`."
)
CLASSIFY_FORM = an_object(
    {"image": _FILE, "images": _FILES, **OPTIONS},
    (),
    description="Exactly one of `image` and `images`, and exactly one of `prompts` and `label_set`. Lists "
    "are repeated parts.",
)
