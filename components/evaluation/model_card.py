"""The model card that lies beside a model: what it is, what it was trained and tested on, and where it ends.

It begins with the front matter that Hugging Face reads: https://huggingface.co/docs/hub/model-cards
"""

from typing import Any

import yaml

from components.data.pictures import licence_of
from components.text import clean, inline_code, markdown_text

HUB_DATASETS = {
    "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073": "zalando-datasets/fashion_mnist"
}
"""What Hugging Face calls a data set, by the digest of its published test images: a sample in its format is another one."""


def model_card(record: dict[str, Any]) -> str:
    """Return the model card as Markdown; its facts of the model are those of `model.json` and of the ONNX's metadata.

    Args:
        record: Content of `evaluation.json`.
    """
    scores, model, data = record["scores"], record["model"], record["data"]
    low, high = record["accuracy_ci95"]
    counts = data.get("counts", {})
    tested = [row for row in scores["per_class"] if row["support"]]
    weakest = sorted(tested, key=lambda row: (row["recall"], row["class"]))[:5]
    untested = [row["class"] for row in scores["per_class"] if not row["support"]]
    hyperparameters = {**model.get("fixed", {}), **model.get("hyperparameters", {})}
    lines = [
        *_front_matter(record),
        f"# Model card: {markdown_text(record['approach'])} on {markdown_text(record['dataset'])}",
        "",
        "## Model",
        "",
        f"- Input `images`: uint8 (N, H, W, C), raw pixels; output `probabilities`: float32 (N, {len(record['classes'])})",
        *_pictures(model),
        f"- File: `model.onnx`, {record['model_bytes']:,} bytes; normalisation is inside the graph, and its metadata say what"
        " this section says",
        f"- Classes in the order of the probabilities: {', '.join(map(inline_code, record['classes']))}",
        *(f"- {markdown_text(name)}: {inline_code(value)}" for name, value in sorted(hyperparameters.items())),
        "",
        "## Data",
        "",
        f"- Source: {inline_code(data.get('source', 'unknown'))}",
        f"- Content hash: `{data.get('content_hash', 'unknown')}`",
        f"- Images: {counts.get('train', 0):,} train, {counts.get('validation', 0):,} validation, {counts.get('test', 0):,} test",
        f"- Licence of the data: {model.get('data_licence') or licence_of(record['dataset']).text}",
        "",
        "## Training",
        "",
        "- The configuration with the best validation accuracy of a hyperparameter search, trained again with"
        f" {max(len(record['replicates']), 1)} seeds; this file is the seed with the best validation accuracy",
        f"- Versions: {inline_code(model.get('versions', 'unknown'))}",
        "",
        "## Figures",
        "",
        f"On {scores['num_examples']:,} held-out images that neither search nor training received:",
        "",
        f"- Accuracy {100 * scores['accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})",
        f"- Macro F1 {scores['macro_f1']:.4f}, weighted F1 {scores['weighted_f1']:.4f}",
        f"- Calibration error {scores['calibration_error']:.4f}, log loss {scores['log_loss']:.4f}",
        f"- Latency {record['latency']['batch_1']['median_ms']:.2f} ms for one image,"
        f" {record['latency']['batch_256']['median_ms']:.1f} ms for 256"
        f" ({markdown_text(record['latency']['hardware']['device'])})",
        "",
        "## Limits",
        "",
        "- It always answers with one of the classes it knows, whatever the picture shows.",
        "- It was tested on catalogue images of the same source only: cut out, one product, plain background.",
        "- Lowest recall: "
        + ", ".join(f"{markdown_text(r['class'])} {100 * r['recall']:.0f} % of {r['support']}" for r in weakest)
        + ".",
    ]
    if untested:
        lines.append(f"- Classes without a single test image: {', '.join(map(markdown_text, untested))}.")
    return "\n".join(lines) + "\n"


def _front_matter(record: dict[str, Any]) -> list[str]:
    """Return what Hugging Face reads of a card: licence, library, task, tags, data set and figures, as YAML between two lines."""
    name, dataset, scores = clean(record["approach"], 60), clean(record["dataset"], 60), record["scores"]
    licence = licence_of(record["dataset"])
    digests = record["data"].get("checksums", {}).values()
    known = next((HUB_DATASETS[digest] for digest in digests if digest in HUB_DATASETS), None)
    described = {
        "license": licence.id,
        **(
            {"license_name": "licence-of-the-data", "license_link": licence.text.split()[-1]}
            if licence.id == "other"
            else {}
        ),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["fashion", "image-classification", "onnx", name],
        **({"datasets": [known]} if known else {}),
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": f"{name}-{dataset}",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": dataset, "type": known or dataset, "split": "test"},
                        "metrics": [
                            {"type": "accuracy", "name": "Accuracy", "value": float(scores["accuracy"])},
                            {"type": "f1", "name": "Macro F1", "value": float(scores["macro_f1"])},
                        ],
                    }
                ],
            }
        ],
    }
    return ["---", *yaml.safe_dump(described, sort_keys=False, allow_unicode=True).splitlines(), "---", ""]


def _pictures(model: dict[str, Any]) -> list[str]:
    if "image" not in model:  # trained before models said so
        return []
    image = model["image"]
    return [
        f"- Images: {image['height']} x {image['width']} pixels (height x width), {markdown_text(image['colours'])}, 0 to 255",
        f"- How a picture becomes such an image: {markdown_text(model['picture_rule'])}",
    ]
