"""The model card that lies beside a model: what it is, what it was trained and tested on, and where it ends."""

from typing import Any

from components.text import inline_code, markdown_text

LICENCES = {
    "fashion-mnist": "Fashion-MNIST, MIT licence, Zalando SE: https://github.com/zalandoresearch/fashion-mnist",
    "fashion-products": (
        "Fashion Product Images (Small), published on Kaggle under the MIT licence by its uploader; rights in the product"
        " photographs themselves stay with the retailer: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small"
    ),
}


def model_card(record: dict[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        record: Content of `evaluation.json`.
    """
    scores, model, data = record["scores"], record["model"], record["data"]
    low, high = record["accuracy_ci95"]
    counts = data.get("counts", {})
    tested = [row for row in scores["per_class"] if row["support"]]
    weakest = sorted(tested, key=lambda row: (row["recall"], row["class"]))[:5]
    untested = [row["class"] for row in scores["per_class"] if not row["support"]]
    hyperparameters = model.get("hyperparameters", {})
    lines = [
        f"# Model card: {markdown_text(record['approach'])} on {markdown_text(record['dataset'])}",
        "",
        "## Model",
        "",
        f"- Input `images`: uint8 (N, H, W, C), raw pixels; output `probabilities`: float32 (N, {len(record['classes'])})",
        f"- File: `model.onnx`, {record['model_bytes']:,} bytes; preprocessing is inside the graph",
        *(f"- {markdown_text(name)}: {inline_code(value)}" for name, value in sorted(hyperparameters.items())),
        "",
        "## Data",
        "",
        f"- Source: {inline_code(data.get('source', 'unknown'))}",
        f"- Content hash: `{data.get('content_hash', 'unknown')}`",
        f"- Images: {counts.get('train', 0):,} train, {counts.get('validation', 0):,} validation, {counts.get('test', 0):,} test",
        f"- Licence of the data: {LICENCES.get(record['dataset'], 'not known to this program; ask whoever supplied it')}",
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
